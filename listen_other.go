//go:build !unix

package main

import (
	"context"
	"errors"
	"net"
)

// nonblock is for FIFOs, which block nobody here.
const nonblock = 0

// listenUnix says that there are no Unix sockets on this system.
func listenUnix(_ context.Context, path string) (net.Listener, error) {
	return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: errors.ErrUnsupported}
}
