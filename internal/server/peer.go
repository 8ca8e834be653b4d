package server

import (
	"context"
	"net"
	"os/user"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/croft-project/croft/internal/auth"
)

// connContext notes who is at the other end of a connection. Whoever the kernel
// does not vouch for stays nobody.
func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := peerCred(uc)
	if err != nil {
		s.Log.Warn("cannot tell who has connected", "err", err)
		return ctx
	}
	return auth.With(ctx, auth.Identity{
		Protocol: auth.ProtocolUnix, Username: s.users.name(cred.Uid), Address: "@", UID: cred.Uid,
	})
}

// peerCred asks the kernel for the credentials that the peer had when it
// connected. Source: unix(7), SO_PEERCRED.
func peerCred(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return nil, err
	}
	return cred, credErr
}

// userNames remembers the names of users, so that a slow directory service is
// asked once for each.
type userNames struct {
	known sync.Map // uint32 to string
}

func (u *userNames) name(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	if n, ok := u.known.Load(uid); ok {
		return n.(string)
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if who, err := user.LookupId(name); err == nil {
		name = who.Username
	}
	u.known.Store(uid, name)
	return name
}
