//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Tests that listen on a Unix socket in this process run alone until they do,
// because the umask of that moment is everybody's.

// leaveSocket leaves at path the socket of a server that is no more.
func leaveSocket(path string) error {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	return ln.Close()
}

// mkfifo makes a FIFO by the command, for package syscall cannot on every system.
func mkfifo(path string) error { return exec.Command("mkfifo", path).Run() }

// checkServes checks that who connects to path arrives at ln.
func checkServes(t *testing.T, ln net.Listener, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "here I am")
	defer time.AfterFunc(longEnough, func() { ln.Close() }).Stop()
	for hello := ""; hello != "here I am\n"; { // somebody else may have looked in before
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, _ := peer.Read(buf)
		hello = string(buf[:n])
		peer.Close()
	}
}

func TestListenUnix(t *testing.T) {
	const notSocket = "exists and is not a socket"
	for _, tt := range []struct {
		name string
		put  func(path string) error // what is at the path before
		err  string                  // a part, or "" if it is replaced
	}{
		{"nothing", func(string) error { return nil }, ""},
		{"stale", leaveSocket, ""},
		{"file", func(path string) error { return os.WriteFile(path, []byte("mine"), 0o644) }, notSocket},
		{"directory", func(path string) error { return os.Mkdir(path, 0o755) }, notSocket},
		{"fifo", mkfifo, notSocket},
		{"symlink", func(path string) error { return errors.Join(leaveSocket("other"), os.Symlink("other", path)) }, notSocket},
		{"dangling", func(path string) error { return os.Symlink("other", path) }, notSocket},
	} {
		for _, name := range []string{"w.sock", "@w"} { // the second one is no abstract socket
			t.Run(tt.name+" "+name, func(t *testing.T) {
				t.Chdir(socketDir(t))
				if err := tt.put("./" + name); err != nil {
					t.Fatal(err)
				}
				before, _ := os.Lstat(name)
				ln, err := listenUnix(t.Context(), name, 0o600)
				if err == nil {
					defer ln.Close()
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got the error %v, want %q", err, tt.err)
				}
				if err == nil {
					checkServes(t, ln, "./"+name)
					return
				}
				if after, err := os.Lstat(name); err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() || before.Size() != after.Size() {
					t.Errorf("got %v and %v there now, want what was there", after, err)
				}
			})
		}
	}
}

// TestListenUnixLive checks that a second server leaves the first one alone.
func TestListenUnixLive(t *testing.T) {
	for _, name := range []string{"w.sock", "@w"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(socketDir(t))
			first, err := listenUnix(t.Context(), name, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			second, err := listenUnix(t.Context(), name, 0o600)
			if err == nil {
				second.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "already listening") {
				t.Errorf("got the error %v, want one that says already listening", err)
			}
			checkServes(t, first, "./"+name)
		})
	}
}

// TestListenUnixFull checks that a server whose backlog is full counts as alive.
func TestListenUnixFull(t *testing.T) {
	path := filepath.Join(socketDir(t), "w.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			defer conn.Close()
		}
	}
	if !errors.Is(err, syscall.EAGAIN) {
		t.Skipf("a full backlog says %v here", err)
	}
	if _, err := listenUnix(t.Context(), path, 0o600); err == nil || !strings.Contains(err.Error(), "already listening") {
		t.Errorf("got the error %v, want one that says already listening", err)
	}
}

// TestListenUnixMode looks at the socket from its birth on, which is not to be
// seen with any other mode, whatever the umask.
func TestListenUnixMode(t *testing.T) {
	const umask = 0o002
	defer syscall.Umask(syscall.Umask(umask))
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777} {
		want := fs.ModeSocket | mode
		path := filepath.Join(socketDir(t), "w.sock")
		stop := make(chan struct{})
		var looking sync.WaitGroup
		looking.Go(func() {
			for {
				if fi, err := os.Lstat(path); err == nil && fi.Mode() != want {
					t.Errorf("got mode %v, want %v", fi.Mode(), want)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		for range 20 {
			ln, err := listenUnix(t.Context(), path, mode)
			if err != nil {
				t.Fatal(err)
			}
			if fi, err := os.Lstat(path); err != nil || fi.Mode() != want {
				t.Fatalf("got %v and %v, want mode %v", fi, err, want)
			}
			ln.Close()
		}
		close(stop)
		looking.Wait()
		if got := syscall.Umask(umask); got != umask {
			t.Errorf("got umask %#o afterwards, want %#o", got, umask)
		}
	}
}

// TestMode starts the program with a mode for its socket, and without.
func TestMode(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want fs.FileMode
	}{
		{nil, 0o600},
		{[]string{"-mode", "660"}, 0o660},
		{[]string{"-mode", "0666"}, 0o666},
	} {
		sock := filepath.Join(socketDir(t), "w.sock")
		start(t, append(tt.args, "-unix", sock, "no-such-file")...)
		if fi, err := os.Lstat(sock); err != nil || fi.Mode().Perm() != tt.want {
			t.Errorf("%q: got %v and %v, want the mode %v", tt.args, fi, err, tt.want)
		}
	}
}

// TestListenUnixLength tries paths about as long as they can be.
func TestListenUnixLength(t *testing.T) {
	t.Chdir(socketDir(t))
	limit := len(syscall.RawSockaddrUnix{}.Path) - 1
	for n := limit - 3; n <= limit+3; n++ {
		for first, limit := range map[string]int{"w": limit, "@": limit - 2} { // for ./ before it
			path := first + strings.Repeat("x", n-1)
			ln, err := listenUnix(t.Context(), path, 0o600)
			want := fmt.Sprintf("listen unix %s: the path has %d bytes and a socket's can have %d; choose a shorter one", path, n, limit)
			switch {
			case n > limit && (err == nil || err.Error() != want):
				t.Errorf("got %v, want %s", err, want)
			case n <= limit && err != nil:
				t.Errorf("%s... of %d bytes: got %v, want none up to %d", first, n, err, limit)
			case err == nil:
				if _, err := os.Lstat(path); err != nil {
					t.Error(err)
				}
				ln.Close()
			}
		}
	}
}

// TestListenUnixClose checks that the end of a server takes away its own socket,
// and nothing else that has got its name.
func TestListenUnixClose(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(path string) error // instead of the socket
	}{
		{"own", nil},
		{"gone", os.Remove},
		{"successor", func(path string) error { return errors.Join(os.Remove(path), leaveSocket(path)) }},
		{"file", func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o644)) }},
		{"moved", func(path string) error { return os.Rename(path, path+".old") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(socketDir(t), "w.sock")
			ln, err := listenUnix(t.Context(), path, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			var before fs.FileInfo
			if tt.put != nil {
				if err := tt.put(path); err != nil {
					t.Fatal(err)
				}
				before, _ = os.Lstat(path)
			}
			if err := ln.Close(); err != nil {
				t.Error(err)
			}
			after, _ := os.Lstat(path)
			if (before == nil) != (after == nil) || before != nil && !os.SameFile(before, after) {
				t.Errorf("got %v there after Close, want %v", after, before)
			}
		})
	}
}

// TestUnix subscribes on both sockets of a server that serves one at a time.
func TestUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target.txt")
	sock := filepath.Join(socketDir(t), "w.sock")
	p := start(t, "-max", "1", "-unix", sock, path)
	t.Parallel()
	p.waitLog("net-watcher: listening on " + sock)
	for id, network := range []string{"unix", "tcp", "tcp", "unix", "unix"} { // neither keeps the slot from the other
		a := dialPeer(t, network, map[string]string{"unix": sock, "tcp": p.addr}[network])
		a.hears("waiting", path)
		a.Close()
		p.waitLog(fmt.Sprintf("net-watcher: subscriber %d disconnected (0 connected)", id+1))
	}
	p.waitLog("net-watcher: subscriber 1 connected from " + sock + " (1 connected)")
	holding := p.subscribe()
	holding.hears("waiting", path)
	onUnix, onTCP := dialPeer(t, "unix", sock), p.subscribe()
	holding.Close()
	onUnix.SetReadDeadline(time.Now().Add(longEnough))
	var serving sync.WaitGroup // whichever is first, the other comes next
	for _, a := range []*peer{onUnix, onTCP} {
		serving.Go(func() {
			if _, err := a.lines.ReadString('\n'); err != nil {
				t.Errorf("waiting on %v: %v", a.RemoteAddr(), err)
			}
			a.Close()
		})
	}
	serving.Wait()
	p.stop()
	if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v for the socket after the end, want none", err)
	}
}

// TestRunUnix checks what is said when a socket cannot be made.
func TestRunUnix(t *testing.T) {
	dir := socketDir(t)
	for _, tt := range []struct{ path, stderr string }{
		{dir, "net-watcher: listen unix " + dir + ": the file exists and is not a socket; choose another path\n"},
		{dir + "/none/w.sock", "net-watcher: listen unix " + dir + "/none/w.sock: bind: no such file or directory\n"},
	} {
		var stderr strings.Builder
		status := exitStatus(run(t.Context(), []string{"-tcp", "127.0.0.1:0", "-unix", tt.path, "a.txt"}, io.Discard, &stderr), &stderr)
		if status != 1 || stderr.String() != tt.stderr {
			t.Errorf("got status %d and %q, want 1 and %q", status, &stderr, tt.stderr)
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for sig, name := range map[syscall.Signal]string{syscall.SIGINT: "interrupt", syscall.SIGTERM: "terminated", syscall.SIGHUP: "hangup"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			signal.Notify(make(chan os.Signal, 1), sig) // or a process would inherit that it is ignored, as under nohup
			sock := filepath.Join(socketDir(t), "w.sock")
			cmd, log := spawn(t, `exec "$0" "$@"`, "-unix", sock, "no-such-file")
			log.wait(t, "listening on")
			cmd.Process.Signal(sig)
			state := ends(cmd)
			if got, want := log.String(), "net-watcher: "+name+": closing\n"; !state.Success() || !strings.HasSuffix(got, want) {
				t.Errorf("got %v and the log\n%swant status 0 and at last\n%s", state, got, want)
			}
			if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v for the socket after the end, want none", err)
			}
		})
	}
}

// TestSecondSignal kills a server that is closing, which takes it a moment since
// a subscriber does not read. Should the signal come after that moment, it is
// tried again.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	args := []string{"-tcp", "127.0.0.1:0"}
	for i := range 900 {
		args = append(args, strings.Repeat("long", 500)+fmt.Sprint(i))
	}
	for range 10 {
		cmd, log := spawn(t, `exec "$0" "$@"`, args...)
		addr := strings.TrimPrefix(log.wait(t, "listening on"), "net-watcher: listening on ")
		dialPeer(t, "tcp", addr)
		log.wait(t, "connected from")
		cmd.Process.Signal(syscall.SIGINT)
		log.wait(t, "interrupt: closing")
		cmd.Process.Signal(syscall.SIGTERM)
		if status := ends(cmd).Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() == syscall.SIGTERM {
			return
		}
	}
	t.Error("got a clean end every time, want death by the second signal")
}

// TestNohup checks that a hangup stays ignored.
func TestNohup(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "target.txt")
	sock := filepath.Join(socketDir(t), "w.sock")
	cmd, log := spawn(t, `trap "" HUP; exec "$0" "$@"`, "-unix", sock, path)
	log.wait(t, "listening on")
	cmd.Process.Signal(syscall.SIGHUP)
	a := dialPeer(t, "unix", sock)
	a.hears("waiting", path)
	replace(t, path, "one")
	a.hears("created", path)
	cmd.Process.Signal(syscall.SIGTERM)
	if state := ends(cmd); !state.Success() || strings.Contains(log.String(), "hangup") {
		t.Errorf("got %v and the log\n%swant no hangup in it", state, log)
	}
}

// TestStderr takes away the place that the log goes to.
func TestStderr(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"&-", "/dev/full", "fifo"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(to); to == "/dev/full" && err != nil {
				t.Skip(err)
			}
			path := filepath.Join(t.TempDir(), "target.txt")
			dir := socketDir(t)
			if err := mkfifo(dir + "/fifo"); err != nil {
				t.Fatal(err)
			}
			r, err := os.OpenFile(dir+"/fifo", os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			cmd, _ := spawn(t, `cd `+dir+`; exec "$0" "$@" 2>`+to, "-unix", "w.sock", path)
			until(t, func() bool {
				conn, err := net.Dial("unix", dir+"/w.sock")
				if err == nil {
					conn.Close()
				}
				return err == nil
			}, "server")
			first := dialPeer(t, "unix", dir+"/w.sock")
			first.hears("waiting", path)
			r.Close()
			first.Close() // which is logged, or not
			second := dialPeer(t, "unix", dir+"/w.sock")
			second.hears("waiting", path)
			replace(t, path, "one")
			second.hears("created", path)
			cmd.Process.Signal(syscall.SIGTERM)
			if state := ends(cmd); !state.Success() {
				t.Errorf("got %v, want status 0", state)
			}
		})
	}
}

// TestOpened checks that only regular files are opened, and no larger ones than are compared.
func TestOpened(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "small", "large")
	if err := errors.Join(os.Truncate(dir+"/large", 1<<20+1), mkfifo(dir+"/fifo")); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, "-content", dir+"/small", dir+"/large", dir+"/fifo")
		var opened atomic.Bool
		c.open = func(name string) (*os.File, error) {
			if name != dir+"/small" && name != "/proc/self/mountinfo" {
				t.Errorf("opened %s", name)
			}
			opened.Store(opened.Load() || name == dir+"/small")
			return os.Open(os.DevNull)
		}
		begin(t, c)
		time.Sleep(10 * time.Second)
		if !opened.Load() {
			t.Error("opened nothing")
		}
	})
}

// TestOpenFIFO checks that a FIFO that has taken the name of a file blocks no poll.
func TestOpenFIFO(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := mkfifo(path); err != nil {
		t.Fatal(err)
	}
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		if f, err := configure(t, "x").open(path); err == nil {
			f.Close()
		}
	}()
	select {
	case <-opened:
	case <-time.After(longEnough):
		t.Error("the open blocks")
	}
}

// TestFIFOInDoubt has a FIFO take the name of a file whose content is to be
// compared, and somebody have it open who never writes. The poller goes on.
func TestFIFOInDoubt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, "a", "b")
	if err := mkfifo(dir + "/fifo"); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(dir+"/fifo", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	c := configure(t, "-interval", "1ms", "-content", dir+"/a", dir+"/b")
	var swapped atomic.Bool
	open := c.open
	c.open = func(name string) (*os.File, error) {
		if name == dir+"/a" && swapped.Load() {
			os.Rename(dir+"/fifo", dir+"/a")
		}
		return open(name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ln, logged, stopped := launch(ctx, c)
	defer func() {
		cancel()
		<-stopped
	}()
	logged.wait(t, "listening on")
	j := &peer{Conn: ln.dial("j").down, t: t}
	j.lines = bufio.NewReader(j.Conn)
	j.hears("watching", dir+"/a")
	j.hears("watching", dir+"/b")
	swapped.Store(true)
	j.hears("changed", dir+"/a")
	replace(t, dir+"/b", "new")
	j.hears("changed", dir+"/b")
}

// TestWorkingDirectory replaces the directory in which the server was started. A
// relative target is what it was then, and shown as typed.
func TestWorkingDirectory(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"f", "./f", "."} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "cwd")
			writeFiles(t, dir, "f", "g")
			_, log := spawn(t, `cd `+dir+` || exit; exec "$0" "$@"`, "-tcp", "127.0.0.1:0", target)
			a := dialPeer(t, "tcp", strings.TrimPrefix(log.wait(t, "listening on"), "net-watcher: listening on "))
			shown, file := target, target
			if target == "." {
				shown, file = "./", "./f"
			}
			a.hears("watching", shown)
			if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o777), os.WriteFile(dir+"/f", []byte("b"), 0o666)); err != nil {
				t.Fatal(err)
			}
			for {
				line := a.line()
				if verb, rest, _ := strings.Cut(line, " "); verb != "removed" && strings.HasSuffix(rest, " "+file) {
					break // it may have been removed before, as a poll takes less time than that
				}
			}
		})
	}
}

// mounted runs a command that mounts a file system at dir, unmounts it when the test ends, and returns a
// function that mounts it anew. The test is skipped for want of a command or a right.
func mounted(t *testing.T, dir string, command ...string) (again func()) {
	t.Helper()
	needs(t, command[0])
	mount := func() error {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%q: %w: %s", command, err, out)
		}
		return nil
	}
	if err := mount(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { unmount(dir) })
	return func() {
		t.Helper()
		if err := errors.Join(unmount(dir), mount()); err != nil {
			t.Fatal(err)
		}
	}
}

// unmount detaches what is mounted at dir, though it may be in use at this moment.
func unmount(dir string) error {
	out, err := exec.Command("umount", "-l", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("umount %s: %w: %s", dir, err, out)
	}
	return nil
}

// fuseMount mounts back at dir with sshfs or mergerfs. The server of sshfs is a program here, so that nothing
// listens.
func fuseMount(t *testing.T, kind, back, dir string) (again func()) {
	t.Helper()
	needs(t, "umount")
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip(err)
	} else {
		f.Close()
	}
	if kind == "mergerfs" {
		return mounted(t, dir, "mergerfs", back, dir)
	}
	var servers []string
	for _, name := range []string{"/usr/lib/openssh", "/usr/lib/ssh", "/usr/libexec/openssh", "/usr/libexec"} {
		if _, err := os.Stat(name + "/sftp-server"); err == nil {
			servers = append(servers, name+"/sftp-server")
		}
	}
	if len(servers) == 0 {
		t.Skip("no sftp-server")
	}
	script := filepath.Join(t.TempDir(), "ssh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+servers[0]+"\n"), 0o777); err != nil {
		t.Fatal(err)
	}
	return mounted(t, dir, "sshfs", "-o", "ssh_command="+script, "host:"+back, dir)
}

// hearsNothing waits for some polls and checks that nothing is sent meanwhile. The verdict does not depend on
// when: a file beside the targets tells that polls have passed.
func (p *peer) hearsNothing(t *testing.T, beside string) {
	t.Helper()
	for range 3 {
		replace(t, beside, fmt.Sprint(time.Now()))
		p.hears("changed", beside)
	}
}

// TestFUSE drops the caches of the kernel three times, and mounts anew, which gives files of sshfs and
// mergerfs other inode numbers. Nothing is told of that, and a change after it is. The two run side by side, but
// with no other test, because the caches are everybody's.
func TestFUSE(t *testing.T) {
	for _, kind := range []string{"sshfs", "mergerfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			back, dir, beside := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "beside")
			for i := range 30 {
				writeFiles(t, back, fmt.Sprintf("tree/%d", i), fmt.Sprintf("tree/d/%d", i))
			}
			writeFiles(t, back, "file")
			writeFiles(t, filepath.Dir(beside), "beside")
			again := fuseMount(t, kind, back, dir)
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
				t.Skip(err)
			}
			p := start(t, "-interval", "50ms", dir+"/tree", dir+"/file", beside)
			a := p.subscribe()
			a.hears("watching", dir+"/tree/")
			a.hears("watching", dir+"/file")
			a.hears("watching", beside)
			for range 3 {
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
					t.Fatal(err)
				}
				a.hearsNothing(t, beside)
			}
			again()
			a.hearsNothing(t, beside)
			writeFiles(t, dir, "new")                                        // behind the mount it would be in a cache of sshfs for 20 s
			if err := os.Rename(dir+"/new", dir+"/tree/d/new"); err != nil { // so that no poll sees half of it
				t.Fatal(err)
			}
			a.hears("created", dir+"/tree/d/new")
			replace(t, back+"/file", "more")
			a.hears("changed", dir+"/file")
		})
	}
}

// TestSSHFS has another machine append to a named file on sshfs, which answers a stat from its cache for 20 s.
func TestSSHFS(t *testing.T) {
	back, dir := t.TempDir(), t.TempDir()
	writeFiles(t, back, "a")
	fuseMount(t, "sshfs", back, dir)
	p := start(t, "-interval", "50ms", dir+"/a")
	t.Parallel()
	a := p.subscribe()
	a.hears("watching", dir+"/a")
	for i := range 5 {
		f, err := os.OpenFile(back+"/a", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		if _, err := f.WriteString("more"); err != nil {
			t.Fatal(err)
		}
		f.Close()
		a.hears("changed", dir+"/a")
		t.Logf("append %d was told after %v", i, time.Since(before)) // 5 s are asked for, and 20 given
	}
}

// TestUnmounted takes a bind mount away from under a tree and a named file.
func TestUnmounted(t *testing.T) {
	back, dir, beside := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "beside")
	writeFiles(t, back, "tree/a", "tree/d/b", "file")
	writeFiles(t, filepath.Dir(beside), "beside")
	mount := []string{"mount", "--bind", back, dir}
	again := mounted(t, dir, mount...)
	p := start(t, dir, dir+"/tree", dir+"/file", beside)
	a := p.subscribe()
	a.hears("watching", dir+"/")
	a.hears("watching", dir+"/tree/")
	a.hears("watching", dir+"/file")
	a.hears("watching", beside)
	if err := unmount(dir); err != nil {
		t.Fatal(err)
	}
	p.waitLog("not mounted")
	for range 10 {
		a.hearsNothing(t, beside)
	}
	if out, err := exec.Command(mount[0], mount[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.waitLog("mounted again")
	a.hearsNothing(t, beside)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("net-watcher: %[1]s/: not mounted; keeping its last state\nnet-watcher: %[1]s/: mounted again\n", real)
	if _, got, _ := strings.Cut(p.log.String(), "(1 connected)\n"); got != want {
		t.Errorf("logged\n%swant\n%s", got, want)
	}

	// Only what differs is told after another time, and after a quick one.
	again()
	a.hearsNothing(t, beside)
	if err := os.Remove(back + "/file"); err != nil {
		t.Fatal(err)
	}
	a.hears("removed", dir+"/file")
	a.hears("removed", dir+"/file") // of the other target
}

// TestFlicker has a bind mount go and come back again and again, over an empty directory and over one with files of the
// same names, inside a tree, as a target, and below named files. Only what is written then is told. The server has a
// process of its own, because the events of mounts are late in one that is busy with other tests.
func TestFlicker(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{nil, {"share/a", "share/b"}} {
		back, dir, beside := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "beside")
		writeFiles(t, back, "a", "b")
		writeFiles(t, filepath.Dir(beside), "beside")
		writeFiles(t, dir, append(names, "share/d/below")...)
		if err := os.Chtimes(back+"/a", time.Unix(2e8, 1), time.Unix(2e8, 1)); err != nil {
			t.Fatal(err)
		}
		again := mounted(t, dir+"/share", "mount", "--bind", back, dir+"/share")
		_, log := spawn(t, `exec "$0" "$@"`, "-interval", "10ms", "-tcp", "127.0.0.1:0", dir, dir+"/share", dir+"/share/a", dir+"/share/b", beside)
		a := dialPeer(t, "tcp", strings.TrimPrefix(log.wait(t, "listening on"), "net-watcher: listening on "))
		for _, path := range []string{dir + "/", dir + "/share/", dir + "/share/a", dir + "/share/b", beside} {
			a.hears("watching", path)
		}
		for range 100 {
			again()
		}
		a.hearsNothing(t, beside)
		replace(t, back+"/b", "more")
		told := []string{a.line(), a.line(), a.line()} // by each of the targets
		for _, line := range told {
			if !strings.HasPrefix(line, "changed ") || !strings.HasSuffix(line, "/share/b") {
				t.Errorf("got %q, want changed TIME .../share/b", line)
			}
		}
	}
}

// TestBoundToItself takes away a bind mount of a directory over itself, which shows the same files. Another directory in
// its place is no lost mount then.
func TestBoundToItself(t *testing.T) {
	t.Parallel()
	dir, beside := t.TempDir(), filepath.Join(t.TempDir(), "beside")
	writeFiles(t, dir, "d/f", "e/g")
	writeFiles(t, filepath.Dir(beside), "beside")
	mounted(t, dir+"/d", "mount", "--bind", dir+"/d", dir+"/d")
	p := start(t, dir+"/d", beside)
	a := p.subscribe()
	a.hears("watching", dir+"/d/")
	a.hears("watching", beside)
	if err := unmount(dir + "/d"); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxHolds {
		a.hearsNothing(t, beside)
	}
	if err := errors.Join(os.Rename(dir+"/d", dir+"/old"), os.Rename(dir+"/e", dir+"/d")); err != nil {
		t.Fatal(err)
	}
	lines := []string{a.line(), a.line()}
	slices.Sort(lines) // if a poll came between the renames, the removal is told first
	if !strings.HasPrefix(lines[0], "created ") || !strings.HasSuffix(lines[0], " "+dir+"/d/g") ||
		!strings.HasPrefix(lines[1], "removed ") || !strings.HasSuffix(lines[1], " "+dir+"/d/f") {
		t.Errorf("got %q, want created of d/g and removed of d/f", lines)
	}
}

// TestSearchable has a target in a working directory below one that the user may not search, as a service may have
// that entered its directory before it gave up its rights.
func TestSearchable(t *testing.T) {
	t.Parallel()
	needs(t, "setpriv")
	dir, err := os.MkdirTemp("", "") // not below that of the test, which is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	writeFiles(t, dir, "here/f", "here/tree/f")
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chmod(dir+"/here", 0o755), os.Chmod(dir+"/here/tree", 0o755)); err != nil {
		t.Fatal(err)
	}
	_, log := spawn(t, `cd `+dir+`/here && cp "$0" program && chmod 755 program &&
		exec setpriv --reuid=65534 --regid=65534 --clear-groups ./program "$@"`, "-tcp", "127.0.0.1:0", "f", "tree")
	t.Cleanup(func() { t.Log(log) })
	a := dialPeer(t, "tcp", strings.TrimPrefix(log.wait(t, "listening on"), "net-watcher: listening on "))
	a.hears("watching", "f")
	a.hears("watching", "tree/")
	replace(t, dir+"/here/f", "more")
	a.hears("changed", "f")
	replace(t, dir+"/here/tree/f", "more")
	if line := a.line(); !strings.HasSuffix(line, " tree/f") && !strings.HasSuffix(line, " tree/f.new") {
		t.Errorf("got %q, want a line about tree/f", line)
	}

	// The paths are absolute again as soon as they can be searched.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	replace(t, dir+"/here/f", "still more")
	for line := a.line(); !strings.HasSuffix(line, " f"); line = a.line() {
	}
}

// TestIdle traces what a server opens on a local disk while nothing changes.
func TestIdle(t *testing.T) {
	t.Parallel()
	needs(t, "strace")
	dir := t.TempDir()
	writeFiles(t, dir, "tree/a", "tree/d/b", "file")
	old := time.Unix(1e8, 1)
	if err := errors.Join(os.Chtimes(dir+"/tree", old, old), os.Chtimes(dir+"/tree/d", old, old)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("strace", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	_, log := spawn(t, `exec strace -f -qq -e trace=openat,open,?newfstatat,?lstat,?stat,?statx -o `+trace+` "$0" "$@"`, "-tcp", "127.0.0.1:0", dir+"/tree", dir+"/file")
	log.wait(t, "listening on")
	polls := func() (n int, text string) {
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), dir+`/file"`), string(data)
	}
	first, before := polls()
	until(t, func() bool { n, _ := polls(); return n > first+200 }, "200 polls")
	_, text := polls()
	for line := range strings.Lines(text[len(before):]) {
		_, call, _ := strings.Cut(line, " ")
		call = strings.TrimSpace(call)
		if strings.Contains(call, `"/sys/devices/system/cpu/`) {
			continue // the C library counts the processors when a thread begins
		}
		if strings.HasPrefix(call, "open") && !strings.Contains(call, dir+`/tree/"`) && !strings.Contains(call, dir+`/tree/d/"`) {
			t.Errorf("got %s", line)
		}
	}
	if n := strings.Count(text[len(before):], "open"); n > 200 {
		t.Errorf("got %d opens in 200 polls", n)
	}
}

// TestKeepAlive traces what a server asks of the system, so that it learns of a peer that has vanished.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	needs(t, "strace")
	if out, err := exec.Command("strace", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	_, log := spawn(t, `exec strace -f -qq -e trace=setsockopt -o `+trace+` "$0" "$@"`, "-tcp", "127.0.0.1:0", "no-such-file")
	a := dialPeer(t, "tcp", strings.TrimPrefix(log.wait(t, "listening on"), "net-watcher: listening on "))
	a.hears("waiting", "no-such-file")
	text := readText(t, trace)
	for _, option := range []string{"SO_KEEPALIVE, [1]", "TCP_KEEPIDLE, [15]", "TCP_KEEPINTVL, [15]", "TCP_KEEPCNT, [4]"} {
		if !strings.Contains(text, option) {
			t.Errorf("got no %s in\n%s", option, text)
		}
	}
}

// TestClients lets everyday clients subscribe, as people call them. Some shut
// down their sending side, and then are greeted twice.
func TestClients(t *testing.T) {
	for _, tt := range []struct {
		command string
		halves  bool
	}{
		{"nc $HOST $PORT", false},
		{"nc -d $HOST $PORT", false},
		{"nc -N $HOST $PORT </dev/null", true},
		{"echo | nc $HOST $PORT", false},
		{"echo | nc -N $HOST $PORT", true},
		{"ncat $HOST $PORT", false},
		{"ncat $HOST $PORT </dev/null", true},
		{"echo | ncat $HOST $PORT", true},
		{"socat - TCP:$HOST:$PORT", false},
		{"socat - TCP:$HOST:$PORT,shut-none", false},
		{"socat -t 60 - TCP:$HOST:$PORT </dev/null", true},
		{"socat -u TCP:$HOST:$PORT -", false},
		{"busybox nc $HOST $PORT", false},
		{"busybox nc $HOST $PORT </dev/null", true},
		{"nc -U $SOCK", false},
		{"nc -NU $SOCK </dev/null", true},
		{"ncat -U $SOCK", false},
		{"ncat -U $SOCK </dev/null", true},
		{"socat - UNIX-CONNECT:$SOCK", false},
		{"socat -t 60 - UNIX-CONNECT:$SOCK </dev/null", true},
		{"socat -u UNIX-CONNECT:$SOCK -", false},
	} {
		t.Run(tt.command, func(t *testing.T) {
			needs(t, strings.Fields(strings.TrimPrefix(tt.command, "echo | "))[0])
			path := filepath.Join(t.TempDir(), "target.txt")
			sock := filepath.Join(socketDir(t), "w.sock")
			p := start(t, "-unix", sock, path)
			t.Parallel()
			host, port, _ := net.SplitHostPort(p.addr)
			_, out, kill := shell(t, fmt.Sprintf("HOST=%s PORT=%s SOCK=%s; %s", host, port, sock, tt.command))
			greetings := 1
			if tt.halves {
				greetings = 2
			}
			heard := func(verb string, n int) {
				t.Helper()
				until(t, func() bool { return strings.Count(out.String(), verb+" 20") == n }, "%d lines with %s in\n%v", n, verb, out)
			}
			heard("waiting", greetings)
			replace(t, path, "one")
			heard("created", 1)
			for n, text := range []string{"two", "three", "four"} {
				replace(t, path, text)
				heard("changed", n+1)
			}
			kill()
			until(t, func() bool {
				if tt.halves && !strings.Contains(tt.command, "SOCK") {
					replace(t, path, "more") // only the next change finds that out
				}
				return strings.Contains(p.log.String(), "net-watcher: subscriber 1 disconnected (0 connected)\n")
			}, "disconnected in the log")
		})
	}
}

// A movedInfo describes a file that is on another device now.
type movedInfo struct{ os.FileInfo }

func (m movedInfo) Sys() any {
	st := *m.FileInfo.Sys().(*syscall.Stat_t)
	st.Dev += 7
	return &st
}

// TestSlowRemount polls a slow tree that was mounted again, with another device number. Helpers look at
// directories and at what is in them at a time, which the race detector watches.
func TestSlowRemount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 100 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d/a", i))
	}
	c := configure(t, dir+"/tree").pollConfig
	var remounted atomic.Bool
	c.lstat = func(name string) (os.FileInfo, error) {
		time.Sleep(2 * slowCall)
		fi, err := os.Lstat(name)
		if err == nil && remounted.Load() {
			return movedInfo{fi}, nil
		}
		return fi, err
	}
	p := quietPoller(c, dir+"/tree")
	p.report = func(changes []change) {
		if remounted.Load() && len(changes) > 0 {
			t.Errorf("got %d changes after the remount, want none", len(changes))
		}
	}
	p.poll(t.Context())
	p.poll(t.Context())
	remounted.Store(true)
	p.poll(t.Context())
}
