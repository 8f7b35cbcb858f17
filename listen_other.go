//go:build !unix

package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
)

const (
	nonblock = 0     // no FIFO blocks an open here
	mayOpen  = false // on Windows a file cannot be renamed while it is open
)

// listenUnix says that there are no Unix sockets on this system.
func listenUnix(_ context.Context, path string, _ fs.FileMode) (net.Listener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	return nil, &net.OpError{Op: "listen", Net: "unix", Addr: addr, Err: errors.ErrUnsupported}
}
