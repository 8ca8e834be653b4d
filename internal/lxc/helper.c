// The part of croftd that calls liblxc.
//
// A constructor runs before the Go runtime. When argv[1] names a helper it does
// that helper's work and leaves; the Go runtime is never set up in it, so the
// container monitor that liblxc forks from here is a small process without
// threads. In every other case it returns at once and the daemon starts.
//
//   croftd forkstart LXCPATH NAME CONF PIDFILE
//       starts the container that CONF describes, in the caller's mount
//       namespace. PIDFILE is written (atomically) when init runs:
//       "INITPID INITSTART MONITORPID MONITORSTART BOOTID\n"; start times are
//       field 22 of proc(5) stat. The same line goes to file descriptor 3.
//       A descriptor 4, if there, is a lock that stays held until the end.
//
//   croftd forkexec LXCPATH NAME CONF
//       runs a command in a running container and stays as its keeper. On
//       descriptor 3, a connected SOCK_SEQPACKET socket, it reads one request
//       (see struct request), enters the container, waits there for 'G' (go) so
//       that this takes place while a client still connects, and reports; without
//       the 'G' the command never runs. Descriptor 4 is a listening
//       SOCK_SEQPACKET socket at which later daemons find the session.
//       Descriptors 0, 1, 2 become the command's; 5 and up are the other ends,
//       kept open here so that neither the command nor its data notice that a
//       daemon died.
//
// Messages of a keeper: 'P' and the pid of the command once it runs; 'E' and an
// errno if it could not be executed; 'F' and a text if the container could not
// be entered; 'X' and the wait status when it ended. A daemon that connects
// gets 'P' with the kept descriptors (SCM_RIGHTS) first, then 'X' when that
// happens. It sends 'C' to close the first kept descriptor (the command's input
// then ends) and 'D' when it is done with the session; the keeper then leaves.
// Without a daemon it leaves an hour after the command's end.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lxc/attach_options.h>
#include <lxc/lxccontainer.h>

#define REPORT_FD 3
#define LISTEN_FD 4
#define KEPT_FD 5
#define MAX_KEPT 3
#define MAX_REQUEST (1 << 20)
#define MAX_CLIENTS 8
#define LINGER_MS (60 * 60 * 1000)

static int fail(const char *text)
{
	dprintf(REPORT_FD, "F%s", text);
	return 1;
}

// default_signals undoes what the daemon ignores (SIGHUP, SIGPIPE) or what it was
// started with: the processes of a container would inherit it, down to the last
// shell, which cannot undo it (signal(7), POSIX sh trap).
static void default_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL); // fails for some, which cannot be changed anyway
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static struct lxc_container *load(const char *path, const char *name, const char *conf)
{
	struct lxc_container *c = lxc_container_new(name, path);

	if (!c)
		return NULL;
	c->clear_config(c);
	if (!c->load_config(c, conf))
		return NULL;
	return c;
}

// start_time reads the parent and the start time of a process from proc(5).
static bool start_time(pid_t pid, pid_t *parent, unsigned long long *start)
{
	char path[64], buf[1024], *p;
	ssize_t n;
	int fd, ppid;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return false;
	buf[n] = 0;
	p = strrchr(buf, ')'); // the command name may hold anything, also ')'
	if (!p || sscanf(p + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ppid, start) != 2)
		return false;
	*parent = ppid;
	return true;
}

static bool write_pids(const char *file, pid_t init)
{
	char boot[64] = "", line[256], tmp[4096];
	unsigned long long istart, mstart;
	pid_t monitor, parent;
	int fd, n;

	if (!start_time(init, &monitor, &istart) || !start_time(monitor, &parent, &mstart))
		return false;
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, boot, 36)) != 36)
		return false;
	close(fd);
	n = snprintf(line, sizeof(line), "%d %llu %d %llu %s\n", init, istart, monitor, mstart, boot);
	if (snprintf(tmp, sizeof(tmp), "%s.tmp", file) >= (int)sizeof(tmp))
		return false;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	if (write(fd, line, n) != n || close(fd) < 0 || rename(tmp, file) < 0)
		return false;
	// The record is what counts. A daemon that has died does not hear of it here,
	// and its successor takes the container over.
	(void)!write(REPORT_FD, line, n);
	return true;
}

static int forkstart(char **argv)
{
	struct lxc_container *c;

	default_signals();
	fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);
	fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC);
	c = load(argv[2], argv[3], argv[4]);
	if (!c)
		return fail("liblxc does not accept the container's configuration");
	if (!c->want_daemonize(c, true) || !c->want_close_all_fds(c, true))
		return fail("liblxc has no memory");
	if (!c->start(c, 0, NULL))
		return fail("liblxc could not start the container");
	signal(SIGPIPE, SIG_IGN); // the daemon that is reported to may have died
	if (!write_pids(argv[5], c->init_pid(c))) {
		// Without the record no later daemon would know the container.
		c->stop(c);
		return fail("the container ended at once, or its process ids could not be recorded");
	}
	return 0;
}

// A request to forkexec: NUL-terminated fields in this order: cwd, uid, gid,
// flags (1: descriptor 0 is a terminal to be controlled by, 2: run in / when cwd
// cannot be entered), number of environment entries, the entries, number of
// arguments, the arguments.
struct request {
	const char *cwd;
	uid_t uid;
	gid_t gid;
	bool tty, any_cwd;
	char **env;
	char **args;
	int report; // where the child tells that the command could not be executed
	int go[2];  // a byte arrives at go[0] when the command is to run
};

struct cursor {
	char *p, *end;
};

static char *field(struct cursor *c)
{
	char *s = c->p, *nul;

	if (!s || s >= c->end || !(nul = memchr(s, 0, c->end - s))) {
		c->p = NULL;
		return NULL;
	}
	c->p = nul + 1;
	return s;
}

static bool number(struct cursor *c, unsigned long *out)
{
	char *s = field(c), *end;

	if (!s || !*s)
		return false;
	errno = 0;
	*out = strtoul(s, &end, 10);
	return errno == 0 && *end == 0 && *out <= UINT32_MAX;
}

static char **list(struct cursor *c)
{
	unsigned long n;
	char **v;

	if (!number(c, &n) || n > MAX_REQUEST)
		return NULL;
	v = calloc(n + 1, sizeof(*v));
	for (unsigned long i = 0; v && i < n; i++)
		if (!(v[i] = field(c)))
			return NULL;
	return v;
}

static bool parse(char *buf, size_t len, struct request *r)
{
	struct cursor c = {buf, buf + len};
	unsigned long uid, gid, flags;

	if (!(r->cwd = field(&c)) || !number(&c, &uid) || !number(&c, &gid) || !number(&c, &flags))
		return false;
	r->uid = uid;
	r->gid = gid;
	r->tty = flags & 1;
	r->any_cwd = flags & 2;
	return (r->env = list(&c)) && (r->args = list(&c)) && r->args[0];
}

// run is the command's process, inside the container.
static int run(void *data)
{
	struct request *r = data;
	int err;
	char c;

	close(r->go[1]); // or the end of the keeper would go unnoticed
	if (read(r->go[0], &c, 1) != 1)
		_exit(0);
	setsid();
	if (r->tty)
		ioctl(STDIN_FILENO, TIOCSCTTY, 0);
	default_signals();
	if (chdir(r->cwd) < 0 && !r->any_cwd)
		goto failed;
	execvpe(r->args[0], r->args, r->env);
failed:
	err = errno;
	if (write(r->report, &err, sizeof(err)) != sizeof(err))
		_exit(125);
	_exit(err == ENOENT ? 127 : 126);
}

static ssize_t send_kept(int sock, const void *msg, size_t len)
{
	char control[CMSG_SPACE(MAX_KEPT * sizeof(int))] = {0};
	struct iovec iov = {(void *)msg, len};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[MAX_KEPT], n = 0;

	for (int fd = KEPT_FD; fd < KEPT_FD + MAX_KEPT; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			fds[n++] = fd;
	if (n > 0) {
		struct cmsghdr *cm;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		cm = CMSG_FIRSTHDR(&h);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, n * sizeof(int));
	}
	return sendmsg(sock, &h, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void tell(int sock, char what, int value)
{
	char msg[32];
	int n = snprintf(msg, sizeof(msg), "%c%d", what, value);

	send(sock, msg, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// keep serves the session until a daemon says that it is done with it.
static int keep(pid_t pid)
{
	struct pollfd p[2 + MAX_CLIENTS];
	int nclients = 1, status = 0, pidfd;
	bool ended = false;

	pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return 1;
	p[0] = (struct pollfd){pidfd, POLLIN, 0};
	p[1] = (struct pollfd){LISTEN_FD, POLLIN, 0};
	p[2] = (struct pollfd){REPORT_FD, POLLIN, 0};
	for (;;) {
		int n = poll(p, 2 + nclients, ended ? LINGER_MS : -1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0;
		if (p[0].revents) {
			while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
				;
			ended = true;
			p[0].fd = -1;
			for (int i = 2; i < 2 + nclients; i++)
				tell(p[i].fd, 'X', status);
		}
		for (int i = 2; i < 2 + nclients; i++) {
			char c;
			ssize_t got;

			if (!p[i].revents)
				continue;
			got = recv(p[i].fd, &c, 1, MSG_DONTWAIT);
			if (got == 1 && c == 'D')
				return 0;
			if (got == 1 && c == 'C')
				close(KEPT_FD);
			if (got <= 0) { // that daemon is gone; another may come
				close(p[i].fd);
				p[i--] = p[2 + --nclients];
			}
		}
		if (p[1].revents && nclients < MAX_CLIENTS) {
			int fd = accept4(LISTEN_FD, NULL, NULL, SOCK_CLOEXEC);
			char msg[32];
			int len = snprintf(msg, sizeof(msg), "P%d", pid);

			if (fd < 0)
				continue;
			if (send_kept(fd, msg, len) < 0) {
				close(fd);
				continue;
			}
			if (ended)
				tell(fd, 'X', status);
			p[2 + nclients++] = (struct pollfd){fd, POLLIN, 0};
		}
	}
}

static int forkexec(char **argv)
{
	lxc_attach_options_t opts = LXC_ATTACH_OPTIONS_DEFAULT;
	struct request r = {0};
	struct lxc_container *c;
	int null, failure = 0, status, p[2];
	char *buf = malloc(MAX_REQUEST);
	ssize_t n;
	pid_t pid;

	signal(SIGPIPE, SIG_IGN);
	for (int fd = REPORT_FD; fd < KEPT_FD + MAX_KEPT; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	// What the daemon was itself started with is not for the command.
	close_range(KEPT_FD + MAX_KEPT, ~0U, 0);
	n = buf ? recv(REPORT_FD, buf, MAX_REQUEST, 0) : -1;
	if (n <= 0 || !parse(buf, n, &r))
		return fail("malformed request");
	c = load(argv[2], argv[3], argv[4]);
	if (!c || pipe2(p, O_CLOEXEC) < 0 || pipe2(r.go, O_CLOEXEC) < 0)
		return fail("liblxc does not accept the container's configuration");
	r.report = p[1];
	opts.env_policy = LXC_ATTACH_CLEAR_ENV;
	opts.extra_env_vars = r.env;
	opts.uid = r.uid;
	opts.gid = r.gid;
	opts.initial_cwd = "/";
	opts.stdin_fd = STDIN_FILENO;
	opts.stdout_fd = STDOUT_FILENO;
	opts.stderr_fd = STDERR_FILENO;
	if (c->attach(c, run, &r, &opts, &pid) < 0)
		return fail("liblxc could not enter the container");
	close(p[1]);
	close(r.go[0]);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		return fail("no /dev/null");
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd); // the command must see end of file when the daemon closes its ends
	prctl(PR_SET_NAME, "croft session");
	signal(SIGHUP, SIG_IGN);
	// Nobody there any more: the command ends with the pipe.
	if (recv(REPORT_FD, buf, 1, 0) != 1 || write(r.go[1], buf, 1) != 1)
		return 1;
	close(r.go[1]);
	if (read(p[0], &failure, sizeof(failure)) == sizeof(failure)) {
		waitpid(pid, &status, 0);
		tell(REPORT_FD, 'E', failure);
		return 0;
	}
	close(p[0]);
	lxc_container_put(c);
	free(buf);
	tell(REPORT_FD, 'P', pid);
	return keep(pid);
}

__attribute__((constructor)) static void helper(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "forkstart") == 0)
		_exit(forkstart(argv));
	if (argc == 5 && strcmp(argv[1], "forkexec") == 0)
		_exit(forkexec(argv));
}
