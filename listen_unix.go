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
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A closed pipe as stdout or stderr must not end the server, so SIGPIPE is
// ignored; that stands here because no other system has it.
func init() {
	signal.Ignore(syscall.SIGPIPE)
}

// nonblock keeps an open from waiting until somebody writes to a FIFO.
const nonblock = syscall.O_NONBLOCK

// listenUnix listens on a Unix socket at path, which only its owner may connect
// to. A socket that a dead server left there is replaced; anything else there is
// an error and stays as it is. Close removes the socket. It changes the umask
// for a moment, so nothing else may create files meanwhile.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	limit := len(syscall.RawSockaddrUnix{}.Path) - 1
	typed := path
	if strings.HasPrefix(path, "@") {
		path = "./" + path // not Linux's abstract namespace, where sockets have no permissions
		limit -= len("./")
	}
	if len(typed) > limit {
		return nil, fmt.Errorf("listen unix %s: the path has %d bytes and a socket's can have %d; choose a shorter one", typed, len(typed), limit)
	}
	ln, err := bindUnix(ctx, path)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = removeStale(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			err = errStarting
		}
		if err != nil {
			return nil, fmt.Errorf("listen unix %s: %w", path, err)
		}
		ln, err = bindUnix(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	bound, err := os.Lstat(path)
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen unix %s: %w", path, err)
	}
	return &unixListener{Listener: ln, path: path, bound: bound}, nil
}

// bindUnix listens at path with mode 0600 from the start: a chmod would come too late.
func bindUnix(ctx context.Context, path string) (net.Listener, error) {
	defer syscall.Umask(syscall.Umask(0o177))
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // unixListener.Close looks first
	return ln, nil
}

// startTime is more than what a server needs between bind and listen.
const startTime = 20 * time.Millisecond

var errStarting = errors.New("another server is starting there")

// removeStale removes the socket at path if no server listens to it. Linux
// refuses a connection to a regular file just as it does to a dead socket, so
// what the path is must be asked first. A server that is just starting refuses
// too, between bind and listen, so it is asked twice. Before the socket is removed, it
// is moved aside and looked at again, for a new server may have taken its place.
func removeStale(ctx context.Context, path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if before.Mode().Type() != os.ModeSocket {
		return errors.New("the file exists and is not a socket; choose another path")
	}
	for range 2 {
		if err := refused(ctx, path); err != nil {
			return err
		}
		wait(ctx, startTime)
	}
	aside, err := os.MkdirTemp(filepath.Dir(path), ".net-watcher-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	moved := filepath.Join(aside, "socket")
	isIt := func(name string) bool { // inode numbers are used again
		now, err := os.Lstat(name)
		return err == nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime())
	}
	if !isIt(path) {
		return errStarting
	}
	if err := os.Rename(path, moved); err != nil {
		return err
	}
	if !isIt(moved) {
		os.Link(moved, path) // back, unless there is a third one by now
		return errStarting
	}
	return nil
}

// refused returns nil if the socket at path refuses connections, as one does that
// nobody listens to, and otherwise why it is to be left alone. The BSDs refuse for
// a full backlog too.
func refused(ctx context.Context, path string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
	}
	switch {
	case err == nil, errors.Is(err, syscall.EAGAIN): // Linux: its backlog is full
		return errors.New("another server is already listening there")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	}
	return err
}

// A unixListener removes its socket on Close, if it is still its own. Go's own
// Close would remove by name what a later server has put there.
type unixListener struct {
	net.Listener
	path  string
	bound os.FileInfo
}

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(l.bound, now) {
		os.Remove(l.path) // a socket that cannot be removed is replaced by the next server
	}
	return l.Listener.Close()
}
