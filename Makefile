# make build | install | test | bench | lint | clean; see CONTRIBUTING.md
#
#   install takes PREFIX (/usr/local), DESTDIR, and COMPAT=1 for links named lxc and lxd.

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

BINDIR  = $(PREFIX)/bin
UNITDIR = $(PREFIX)/lib/systemd/system
MANDIR  = $(PREFIX)/share/man/man1
MODULE  = github.com/croft-project/croft

all: build

build: bin/croft bin/croftd

# The client is pure Go, so that it also builds for systems without liblxc.
bin/croft: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/croft

# The daemon's C constructor becomes the monitor of each container: -buildmode=exe
# (not PIE) keeps that at a third of the memory. internal/archtest checks it.
bin/croftd: FORCE
	CGO_ENABLED=1 $(GO) build -trimpath -buildmode=exe -ldflags '-s -w -X $(MODULE)/internal/daemon.Version=$(VERSION)' -o $@ ./cmd/croftd

# install copies what make build has made; it does not build, which root need not do.
install:
	@test -x bin/croft && test -x bin/croftd || { echo 'run make build first' >&2; exit 1; }
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(MANDIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d
	install -m 0755 bin/croft bin/croftd $(DESTDIR)$(BINDIR)
	for u in packaging/*.service packaging/*.socket; do \
		sed 's|@BINDIR@|$(BINDIR)|g' $$u > $(DESTDIR)$(UNITDIR)/$${u##*/} || exit 1; done
	install -m 0644 packaging/croft.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/croft.conf
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/croft completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/croft
	bin/croft completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_croft
	bin/croft completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/croft.fish
	bin/croft gen-docs man $(DESTDIR)$(MANDIR)
ifeq ($(COMPAT),1)
	ln -sf croft $(DESTDIR)$(BINDIR)/lxc
	ln -sf croftd $(DESTDIR)$(BINDIR)/lxd
endif

test:
	./scripts/test

bench: build
	./scripts/bench

lint:
	@out=$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...)); test -z "$$out" || { echo "gofmt -l:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags system ./...

clean:
	rm -rf bin

FORCE:
.PHONY: all build install test bench lint clean FORCE
