//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// A closed pipe as stdout or stderr must not end the server, so SIGPIPE is ignored. No other system has it.
func init() {
	signal.Ignore(syscall.SIGPIPE)
}

const (
	nonblock = syscall.O_NONBLOCK // an open does not wait until somebody writes to a FIFO
	mayOpen  = true               // a file can be renamed while it is open
)

// listenUnix listens on a Unix socket at path that has the permissions mode. It replaces a socket that a
// dead server left there; anything else there is an error and stays as it is. Close removes the socket. It
// changes the umask for a moment, so nothing else may create files meanwhile.
func listenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	limit, typed := len(syscall.RawSockaddrUnix{}.Path)-1, path
	if strings.HasPrefix(path, "@") {
		path = "./" + path // not Linux's abstract namespace, where sockets have no permissions
		limit -= len("./")
	}
	if len(typed) > limit {
		const tooLong = "listen unix %s: the path has %d bytes and a socket's can have %d; choose a shorter one"
		return nil, fmt.Errorf(tooLong, typed, len(typed), limit)
	}
	ln, err := bindUnix(ctx, path, mode)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = removeStale(ctx, path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // or else it has gone by itself
			return nil, fmt.Errorf("listen unix %s: %w", typed, err)
		}
		ln, err = bindUnix(ctx, path, mode)
	}
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // unixListener.Close looks first
	bound, err := os.Lstat(path)
	wait(ctx, startTime) // another server that has found a stale socket here may remove this one
	if err != nil || !isStill(bound, path) {
		ln.Close()
		return nil, fmt.Errorf("listen unix %s: %w", typed, errStarting)
	}
	return &unixListener{Listener: ln, path: path, bound: bound}, nil
}

// bindUnix listens at path. The socket has its mode from birth, because a chmod would come too late.
func bindUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	defer syscall.Umask(syscall.Umask(int(0o777 &^ mode)))
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}

// startTime is more than a server needs between bind and listen, or between two looks at a path.
const startTime = 20 * time.Millisecond

var errStarting = errors.New("another server is starting there")

// isStill reports whether the file at path is the one that it was. Inode numbers are used again.
func isStill(was fs.FileInfo, path string) bool {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(was, now) && was.ModTime().Equal(now.ModTime())
}

// removeStale removes the socket at path if no server listens to it. Linux refuses a connection to a regular file, too,
// so it asks first what the path is. A server that is just starting refuses between bind and listen, so it dials twice.
// Another server may replace the same stale socket meanwhile, so it looks again what the path is. If the other server
// binds between that look and the removal, it loses its socket, and finds that out in listenUnix. One order stays open,
// because no call removes a file only if it is a certain one. If this server removes that socket and binds before the
// other one has looked what file it has bound, the other one takes this socket for its own: it is deaf, and its end
// removes the socket. The other one needs 5 µs from bind to that look, and this one must be held up right before.
func removeStale(ctx context.Context, path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if before.Mode().Type() != fs.ModeSocket {
		return errors.New("the file exists and is not a socket; choose another path")
	}
	for range 2 {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err == nil {
			conn.Close()
		}
		switch {
		case err == nil, errors.Is(err, syscall.EAGAIN): // Linux: its backlog is full
			return errors.New("another server is already listening there")
		case !errors.Is(err, syscall.ECONNREFUSED): // which the BSDs say of a full backlog too
			return err
		}
		wait(ctx, startTime)
	}
	if !isStill(before, path) {
		return errStarting
	}
	return os.Remove(path)
}

// A unixListener removes its socket on Close, if it is still its own. Go's own Close would remove by name
// what a later server has put there.
type unixListener struct {
	net.Listener
	path  string
	bound fs.FileInfo
}

func (l *unixListener) Close() error {
	if isStill(l.bound, l.path) {
		os.Remove(l.path) // a socket that cannot be removed is replaced by the next server
	}
	return l.Listener.Close()
}
