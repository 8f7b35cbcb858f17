package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// TestMain lets this binary be net-watcher, for the tests that need a process of
// its own: so they meet what was built for all the others, race detector included.
func TestMain(m *testing.M) {
	if os.Getenv("NET_WATCHER_TEST_MAIN") != "" {
		main()
	}
	flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))) // tests wait much; the command line has the last word
	m.Run()
}

// longEnough is when a test gives up on what must happen. Nothing waits so long
// unless it is broken.
const longEnough = 20 * time.Second

// until waits until ok returns true. What it waits for is formatted when that does not come, with the strings
// that args point to as they are by then.
func until(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(longEnough); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			for i, arg := range args {
				if s, ok := arg.(*string); ok {
					args[i] = *s
				}
			}
			t.Fatalf("still no "+what, args...)
		}
	}
}

// A logText is what was logged so far.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits for a line that contains part and returns the first one.
func (l *logText) wait(t *testing.T, part string) (found string) {
	t.Helper()
	defer func() {
		if text := l.String(); found == "" {
			t.Logf("the end of the log:\n%s", text[max(0, len(text)-2000):])
		}
	}()
	until(t, func() bool {
		before, after, _ := strings.Cut(l.String(), part)
		line, _, ended := strings.Cut(after, "\n")
		if ended {
			found = before[strings.LastIndex(before, "\n")+1:] + part + line
		}
		return ended
	}, "%q in the log", part)
	return found
}

// A program is a run of net-watcher inside the test.
type program struct {
	t      *testing.T
	addr   string // where it listens on TCP
	log    logText
	cancel context.CancelCauseFunc
	ended  chan struct{}
	err    error // once it has ended
}

// start starts net-watcher on a free TCP port of 127.0.0.1, and stops it when
// the test ends. With -unix it changes the umask for a moment, so then the test
// must not be running in parallel yet.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	p := &program{t: t, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = run(ctx, append([]string{"-tcp", "127.0.0.1:0", "-interval", "1ms"}, args...), io.Discard, &p.log)
	}()
	t.Cleanup(p.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", &p.log)
		}
	})
	p.addr = strings.TrimPrefix(p.waitLog("listening on"), "net-watcher: listening on ")
	return p
}

func (p *program) waitLog(part string) string {
	p.t.Helper()
	return p.log.wait(p.t, part)
}

// stop ends the program as an interrupt does.
func (p *program) stop() {
	p.t.Helper()
	p.cancel(errors.New("interrupt"))
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("got %v from run, want nil", p.err)
		}
	case <-time.After(longEnough):
		p.t.Errorf("run does not return; the log:\n%s", &p.log)
	}
}

// A peer is a client.
type peer struct {
	net.Conn
	t     *testing.T
	lines *bufio.Reader
}

func (p *program) subscribe() *peer {
	p.t.Helper()
	return dialPeer(p.t, "tcp", p.addr)
}

func dialPeer(t *testing.T, network, addr string) *peer {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{Conn: conn, t: t, lines: bufio.NewReader(conn)}
}

// line returns the next line, without its end.
func (p *peer) line() string {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(longEnough))
	line, err := p.lines.ReadString('\n')
	if err != nil {
		p.t.Fatalf("got %q and %v, want a line", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// hears reads a text line and checks all of it.
func (p *peer) hears(verb, path string) {
	p.t.Helper()
	line := p.line()
	fields := strings.SplitN(line, " ", 3)
	if len(fields) != 3 || fields[0] != verb || fields[2] != path {
		p.t.Fatalf("got %q, want %s TIME %s", line, verb, path)
	}
	now := time.Now()
	at, err := time.Parse("2006-01-02T15:04:05.000Z", fields[1])
	if err != nil || at.After(now) || at.Before(now.Add(-2*longEnough)) {
		p.t.Errorf("got the time %s at %v", fields[1], now.UTC())
	}
}

// A jsonRecord is a line of -json, as a client would decode it.
type jsonRecord struct {
	Type, Time, Started, Path, Mtime string
	Seq                              uint64
	PathBase64                       *string `json:"path_base64"`
	Size                             *int64
}

func decodeRecord(t *testing.T, line string) (r jsonRecord) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("got %q: %v", line, err)
	}
	return r
}

// replace makes path a file with that text by a rename, so that no poll sees half of it.
func replace(t *testing.T, path, text string) {
	t.Helper()
	made := filepath.Join(t.TempDir(), "new")
	if err := errors.Join(os.WriteFile(made, []byte(text), 0o666), os.Rename(made, path)); err != nil {
		t.Fatal(err)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	list, wide := filepath.Join(t.TempDir(), "list"), filepath.Join(t.TempDir(), "wide")
	if err := errors.Join(os.WriteFile(list, []byte("a\n\n# b\nb//c\n"), 0o666), os.WriteFile(wide, []byte("\xff\xfe*\x00.\x00o\x00\r\x00\n\x00"), 0o666)); err != nil {
		t.Fatal(err)
	}
	const dash = `starts with -: flags come before targets, and a file of that name is ./`
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		stdout string
		stderr string // a part of the first line
	}{
		{"no target", nil, 2, "", "no target to watch\n"},
		{"no target after --", []string{"-json", "--"}, 2, "", "no target to watch\n"},
		{"empty target", []string{"a.txt", ""}, 2, "", "empty target\n"},
		{"unknown flag", []string{"-recursive", "a.txt"}, 2, "", "flag provided but not defined: -recursive\n"},
		{"no value", []string{"-unix"}, 2, "", "flag needs an argument: -unix\n"},
		{"bad switch", []string{"-json=maybe", "a.txt"}, 2, "", `invalid boolean value "maybe" for -json: parse error` + "\n"},
		{"bad interval", []string{"-interval", "soon", "a.txt"}, 2, "", `invalid value "soon" for flag -interval: `},
		{"interval without unit", []string{"-interval", "250", "a.txt"}, 2, "", `invalid value "250" for flag -interval: a duration is a number with a unit, like 250ms or 2s` + "\n"},
		{"interval too short", []string{"-interval", "999us", "a.txt"}, 2, "", "-interval 999µs is less than 1ms\n"},
		{"no interval", []string{"-interval", "0", "a.txt"}, 2, "", "-interval 0s is less than 1ms\n"},
		{"negative interval", []string{"-interval", "-1s", "a.txt"}, 2, "", "-interval -1s is less than 1ms\n"},
		{"bad settle", []string{"-settle", "x", "a.txt"}, 2, "", `invalid value "x" for flag -settle: `},
		{"negative settle", []string{"-settle", "-1ns", "a.txt"}, 2, "", "-settle -1ns is negative\n"},
		{"no ] in a pattern", []string{"-exclude", "*.o", "-exclude", "a[", "a.txt"}, 2, "", `invalid value "a[" for flag -exclude: a [ has no ]; \[ is for the character` + "\n"},
		{"no ] before a slash", []string{"-exclude", "a/[b/c]", "a.txt"}, 2, "", `invalid value "a/[b/c]" for flag -exclude: a [ has no ]`},
		{"no ] after !]", []string{"-exclude", "[!]", "a.txt"}, 2, "", `invalid value "[!]" for flag -exclude: a [ has no ]`},
		{"no ] after -", []string{"-exclude", "[a-", "a.txt"}, 2, "", `invalid value "[a-" for flag -exclude: a [ has no ]`},
		{"named class", []string{"-exclude", "x[[:digit:]]", "a.txt"}, 2, "", `invalid value "x[[:digit:]]" for flag -exclude: [: is not known; a digit is [0-9], and a letter [A-Za-z]` + "\n"},
		{"backward range", []string{"-exclude", "[z-a]", "a.txt"}, 2, "", `invalid value "[z-a]" for flag -exclude: a range in it goes backwards` + "\n"},
		{"backslash at the end", []string{"-exclude", `a\`, "a.txt"}, 2, "", `for flag -exclude: a name in it ends with a backslash; \\ is for the character` + "\n"},
		{"backslash before a slash", []string{"-exclude", `a\/b`, "a.txt"}, 2, "", `for flag -exclude: a name in it ends with a backslash`},
		{"backslash before the slash at the end", []string{"-exclude", `a\/`, "a.txt"}, 2, "", `for flag -exclude: a name in it ends with a backslash`},
		{"zero byte behind a backslash", []string{"-exclude", "a[^\\\x00-\xff]", "a.txt"}, 2, "", `no name has a zero byte in it`},
		{"comment as pattern", []string{"-exclude", "#x", "a.txt"}, 2, "", `invalid value "#x" for flag -exclude: it is a comment; \# is for a name that starts with #` + "\n"},
		{"empty pattern", []string{"-exclude", "", "a.txt"}, 2, "", `invalid value "" for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"spaces as pattern", []string{"-exclude", "  ", "a.txt"}, 2, "", `invalid value "  " for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"nothing negated", []string{"-exclude", "!/ ", "a.txt"}, 2, "", `invalid value "!/ " for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"slash as pattern", []string{"-exclude", "/", "a.txt"}, 2, "", `invalid value "/" for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"slashes as pattern", []string{"-exclude", "//", "a.txt"}, 2, "", `invalid value "//" for flag -exclude: `},
		{"empty element in a pattern", []string{"-exclude", "a//b", "a.txt"}, 2, "", `invalid value "a//b" for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"empty element at the end", []string{"-exclude", "a//", "a.txt"}, 2, "", `invalid value "a//" for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"empty element at the start", []string{"-exclude", "//a", "a.txt"}, 2, "", `invalid value "//a" for flag -exclude: it matches nothing, because no name is empty` + "\n"},
		{"dot in front", []string{"-exclude", "./build", "a.txt"}, 2, "", `invalid value "./build" for flag -exclude: no path below a target has . in it; `},
		{"dot as pattern", []string{"-exclude", ".", "a.txt"}, 2, "", `invalid value "." for flag -exclude: no path below a target has . in it; `},
		{"dots in a pattern", []string{"-exclude", "a/../b", "a.txt"}, 2, "", `invalid value "a/../b" for flag -exclude: no path below a target has .. in it; `},
		{"bad line", []string{"-exclude-from", list, "a.txt"}, 2, "", ` for flag -exclude-from: ` + list + `:4: b//c: it matches nothing, because no name is empty` + "\n"},
		{"UTF-16", []string{"-exclude-from", wide, "a.txt"}, 2, "", `wide:1: \xff\xfe*\x00.\x00o\x00\r\x00: no name has a zero byte in it; a file of patterns is in UTF-8"` + "\n"},
		{"no list", []string{"-exclude-from", "no-such-file", "a.txt"}, 1, "", "open no-such-file: "},
		{"directory as list", []string{"-exclude-from", ".", "-exclude-from", list + "x", "a.txt"}, 1, "", "read .: "},
		{"no list and a mistake", []string{"-exclude-from", "no-such-file", "-exclude", "/", "a.txt"}, 2, "", `invalid value "/" for flag -exclude: `},
		{"no list and no target", []string{"-exclude-from", "no-such-file"}, 2, "", "no target to watch\n"},
		{"version of no list", []string{"-exclude-from", "no-such-file", "-version"}, 0, version() + "\n", ""},
		{"mode without unix", []string{"-mode", "660", "a.txt"}, 2, "", "-mode is for the socket of -unix, which is missing\n"},
		{"mode in words", []string{"-unix", "w.sock", "-mode", "u+rw", "a.txt"}, 2, "", `invalid value "u+rw" for flag -mode: a mode has three or four octal digits`},
		{"mode of 2 digits", []string{"-unix", "w.sock", "-mode", "60", "a.txt"}, 2, "", `invalid value "60" for flag -mode: `},
		{"mode of 5 digits", []string{"-unix", "w.sock", "-mode", "00660", "a.txt"}, 2, "", `invalid value "00660" for flag -mode: `},
		{"mode not octal", []string{"-unix", "w.sock", "-mode", "680", "a.txt"}, 2, "", `invalid value "680" for flag -mode: `},
		{"mode too large", []string{"-unix", "w.sock", "-mode", "1777", "a.txt"}, 2, "", `invalid value "1777" for flag -mode: `},
		{"mode without reading", []string{"-unix", "w.sock", "-mode", "0260", "a.txt"}, 2, "", `invalid value "0260" for flag -mode: `},
		{"mode without writing", []string{"-unix", "w.sock", "-mode", "0460", "a.txt"}, 2, "", `invalid value "0460" for flag -mode: `},
		{"max 0", []string{"-max", "0", "a.txt"}, 2, "", "-max 0 is less than 1\n"},
		{"negative max", []string{"-max", "-3", "a.txt"}, 2, "", "-max -3 is less than 1\n"},
		{"bad max", []string{"-max", "many", "a.txt"}, 2, "", `invalid value "many" for flag -max: it is no number of subscribers` + "\n"},
		{"empty tcp", []string{"-tcp", "", "a.txt"}, 2, "", `invalid value "" for flag -tcp: missing port in address; an address is a host and a port, like localhost:60300` + "\n"},
		{"empty tcp beside unix", []string{"-tcp=", "-unix", "w.sock", "a.txt"}, 2, "", `invalid value "" for flag -tcp: missing port in address; an address is a host and a port, like localhost:60300` + "\n"},
		{"port alone", []string{"-tcp", "60300", "a.txt"}, 2, "", `invalid value "60300" for flag -tcp: a port alone is no address; write :60300 or localhost:60300` + "\n"},
		{"port too large", []string{"-tcp", "127.0.0.1:99999", "a.txt"}, 2, "", `invalid value "127.0.0.1:99999" for flag -tcp: address 99999: invalid port` + "\n"},
		{"negative port", []string{"-tcp", "localhost:-1", "a.txt"}, 2, "", `invalid value "localhost:-1" for flag -tcp: address -1: invalid port` + "\n"},
		{"port of no service", []string{"-tcp", "localhost:no-such-service", "a.txt"}, 2, "", `invalid value "localhost:no-such-service" for flag -tcp: lookup tcp/no-such-service: unknown port` + "\n"},
		{"no port", []string{"-tcp", "127.0.0.1", "a.txt"}, 2, "", `invalid value "127.0.0.1" for flag -tcp: address 127.0.0.1: missing port in address; an address is a host and a port, like localhost:60300` + "\n"},
		{"no brackets", []string{"-tcp", "::1:60300", "a.txt"}, 2, "", `invalid value "::1:60300" for flag -tcp: address ::1:60300: too many colons in address; an address is a host and a port, like localhost:60300` + "\n"},
		{"bracket open", []string{"-tcp", "[::1:60300", "a.txt"}, 2, "", `invalid value "[::1:60300" for flag -tcp: address [::1:60300: missing ']' in address; an address is a host and a port, like localhost:60300` + "\n"},
		{"empty unix", []string{"-unix", "", "a.txt"}, 2, "", "empty -unix path\n"},
		{"empty unix beside tcp", []string{"-tcp", addr, "-unix=", "a.txt"}, 2, "", "empty -unix path\n"},
		{"flag after target", []string{"a.txt", "-json"}, 2, "", "target -json " + dash + "-json\n"},
		{"dash after --", []string{"--", "-a.txt"}, 2, "", "target -a.txt " + dash + "-a.txt\n"},
		{"dash alone", []string{"-"}, 2, "", "target - " + dash + "-\n"},
		{"newline in a flag", []string{"-a\nb", "a.txt"}, 2, "", `"flag provided but not defined: -a\nb"` + "\n"},
		{"newline in a target", []string{"--", "-a\nb"}, 2, "", `"target -a\nb ` + dash + `-a\nb"` + "\n"},
		{"escape in a value", []string{"-max", "\x1b[2J", "a.txt"}, 2, "", `for flag -max: `},
		{"help", []string{"-h"}, 0, usage, ""},
		{"help in full", []string{"-json", "--help", "a.txt"}, 0, usage, ""},
		{"version", []string{"-version"}, 0, version() + "\n", ""},
		{"version of a mistake", []string{"-max", "0", "-version", "a.txt"}, 0, version() + "\n", ""},
		{"no such host", []string{"-tcp", "no..name:0", "a.txt"}, 1, "", "net-watcher: listen tcp: lookup no..name: no such host; -tcp chooses another address\n"},
		{"address in use", []string{"-tcp", addr, "a.txt"}, 1, "", "listen tcp " + addr + ": "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), longEnough) // should it run after all
			defer cancel()
			var stdout, stderr bytes.Buffer
			status := exitStatus(run(ctx, tt.args, &stdout, &stderr), &stderr)
			if status != tt.status || stdout.String() != tt.stdout {
				t.Errorf("got status %d and stdout %q, want %d and %q", status, &stdout, tt.status, tt.stdout)
			}
			lines := strings.SplitAfter(stderr.String(), "\n") // an empty string last
			if len(lines) != tt.status+1 || !strings.Contains(lines[0], tt.stderr) || tt.stderr != "" && !strings.HasPrefix(lines[0], "net-watcher: ") {
				t.Errorf("got stderr %q, want %d lines, the first with %q", &stderr, tt.status, tt.stderr)
			}
			if tt.status == 2 && lines[1] != "net-watcher: for usage, run net-watcher -h\n" {
				t.Errorf("got the second line %q, which does not point at -h", lines[1])
			}
			if strings.ContainsRune(stderr.String(), '\x1b') {
				t.Errorf("got stderr %q, with an escape", &stderr)
			}
		})
	}
}

// TestTargets checks which targets are one.
func TestTargets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want []string }{
		{[]string{"a", "b", "a"}, []string{"a", "b"}},
		{[]string{"d", "d/"}, []string{"d"}},
		{[]string{"d//", "d", "d/"}, []string{"d//"}},
		{[]string{"/", "//"}, []string{"/"}},
		{[]string{"a", "./a"}, []string{"a", "./a"}},
		{[]string{"/a", "a"}, []string{"/a", "a"}},
	} {
		if got := configure(t, tt.args...).targets; !slices.Equal(got, tt.want) {
			t.Errorf("got %q of %q, want %q", got, tt.args, tt.want)
		}
	}
}

// TestRunStdout checks that an answer that cannot be given is a failure.
func TestRunStdout(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	r.CloseWithError(errors.New("disk full"))
	for _, flag := range []string{"-h", "-version"} {
		var stderr bytes.Buffer
		status := exitStatus(run(t.Context(), []string{flag}, w, &stderr), &stderr)
		if status != 1 || stderr.String() != "net-watcher: disk full\n" {
			t.Errorf("%s: got status %d and %q, want 1 and the reason", flag, status, &stderr)
		}
	}
}

// TestSignalAtStart has the signal come before the program listens.
func TestSignalAtStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt"))
	var stderr bytes.Buffer
	status := exitStatus(run(ctx, []string{"-tcp", "localhost:0", "x"}, io.Discard, &stderr), &stderr)
	if status != 0 || stderr.String() != "net-watcher: interrupt: closing\n" {
		t.Errorf("got status %d and %q, want 0 and what came", status, &stderr)
	}
}

// TestPatterns checks what lists of patterns exclude, if what is above it is not excluded.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ list, paths, want string }{ // separated by spaces; _ is a space, and a directory ends with a slash
		{`a`, `a a/ b/a b/a/ ab ba`, `a a/ b/a b/a/`},
		{`a/`, `a a/ b/a b/a/`, `a/ b/a/`},
		{`/a`, `a a/ b/a`, `a a/`},
		{`/a/`, `a a/ b/a/`, `a/`},
		{`a/b`, `a a/b a/b/ c/a/b b`, `a/b a/b/`},
		{`a/*`, `a a/b a/b/c`, `a/b`},
		{`*/*`, `a b/ a/b a/b/c`, `a/b`},
		{`*`, `a .a b/ a/b`, `a .a b/ a/b`},
		{`**/a`, `a a/ b/a b/c/a`, `a a/ b/a b/c/a`},
		{`a/**`, `a a/ a/b a/b/ a/b/c b/a/c`, `a/b a/b/ a/b/c`},
		{`a/**/`, `a/ a/b a/b/ a/b/c`, `a/b/`},
		{`a/**/b`, `a/b a/c/b a/c/d/b a/c/b/d b`, `a/b a/c/b a/c/d/b`},
		{`a/**/**/b`, `a/b a/c/b`, `a/b a/c/b`},
		{`**/a/**/b/*`, `a/b a/b/c x/a/y/b/z x/a/y/b/z/b`, `a/b/c x/a/y/b/z`},
		{`a/***/b`, `a/b a/c/b a/c/d/b`, `a/b a/c/b a/c/d/b`},
		{`**`, `a b/ a/b`, `a b/ a/b`},
		{`**/`, `a b/ a/b a/c/`, `b/ a/c/`},
		{`a/a`, `a a/a a/a/a`, `a/a`},
		{`a**b`, `ab axb a/b a/xb`, `ab axb`},                                // as the manual of git says
		{`/a**b c/a**b`, `ab axb a/b c/ab c/axb c/a/b`, `ab axb c/ab c/axb`}, // where git does otherwise
		{`*.o !a.o`, `a.o b.o c/a.o`, `b.o`},
		{`!a.o *.o`, `a.o b.o`, `a.o b.o`},
		{`* !*/ !*.go`, `a a/ a/b.c a/b.go b.go/`, `a a/b.c`},
		{`/* !/a !/b/ /b/* !/b/c`, `a b b/ b/c b/d d`, `b b/d d`},
		{`!!a`, `a !a`, ``},
		{`!a !!a`, `a !a`, ``},
		{`\# \#a \!b \\c \d e\_ f_ \g\__`, `# #a !b \c d \d e_ e f f_ g_`, `# #a !b \c d e_ f g_`},
		{`?.?`, `a.b .a a.bc a.ü`, `a.b`},
		{`?.??`, `a.b a.bc a.ü`, `a.bc a.ü`}, // to git, ü is two
		{`[a] []b]1 [!]c]2 [^d][d]`, `a b ]1 b1 a2 ]2 c2 ed dd`, `a ]1 b1 a2 ed`},
		{`[a-c]1 [-x]2 [x-]3 [+--]4 [a-c-e]5 [a-a]6`, `b1 -2 x2 -3 y3 ,4 -5 d5 e5 a6`, `b1 -2 x2 -3 ,4 -5 e5 a6`},
		{`[\]]1 [\a-\c]2 [a\-c]3 [\\]5 [\[:]6`, `]1 b2 b3 -3 \5 [6 :6`, `]1 b2 -3 \5 [6 :6`},
		{`[[!a]1 [!!]2 [*?]3`, `[1 !1 a1 b1 !2 b2 *3 a3`, `[1 !1 a1 b2 *3`},
		{`/a[+-9]b a[!x]c`, `a/b a.b a5b a/c a.c`, `a.b a5b a.c`}, // a slash is in the range
		{`[!a]`, "a b ü \xff a/b", "b \xff a/b"},
		{`[ü]`, "ü \xc3 \xbc", "\xc3 \xbc"},
		{"\xff* ü? [\xf0-\xff]x", "\xff \xffa üa üb ü \xf8x \xefx", "\xff \xffa üa üb \xf8x"},
	} {
		var c config
		for line := range strings.FieldsSeq(tt.list) {
			if err := c.addPattern(strings.ReplaceAll(line, "_", " ")); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
		var got []string
		for path := range strings.FieldsSeq(tt.paths) {
			name, dir := strings.CutSuffix(strings.ReplaceAll(path, "_", " "), "/")
			if c.patterns.exclude(name, dir) {
				got = append(got, path)
			}
		}
		if want := strings.Fields(tt.want); !slices.Equal(got, want) {
			t.Errorf("%s: of %q got %q, want %q", tt.list, tt.paths, got, want)
		}
	}
}

// TestManyStars has patterns that a search through all ways to split a name, or a path, would not finish with.
func TestManyStars(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ pattern, path string }{
		{strings.Repeat("*a", 30) + "b", strings.Repeat("a", 255)},
		{strings.Repeat("*a/**/", 30) + "b", strings.Repeat(strings.Repeat("a", 255)+"/", 15) + "a"},
		{strings.Repeat("**/a/", 30) + "b", strings.Repeat("a/", 2000) + "a"},
	} {
		var c config
		if err := c.addPattern(tt.pattern); err != nil {
			t.Fatal(err)
		}
		if c.patterns.exclude(tt.path, false) {
			t.Errorf("%s: excluded, without the b at its end", tt.pattern)
		}
	}
}

var lists = flag.Int("lists", 200, "lists of patterns in TestGit")

// TestGit compares what random lists of patterns exclude with what git says. Each list is the .gitignore of a directory
// of its own. What is not there is a file to git, so only directories and links to them need to be there.
func TestGit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	repo, seed := t.TempDir(), rand.Uint64()
	g := gitignores{rand.New(rand.NewPCG(seed, 0))}
	lines := map[string]string{} // of each directory
	got := map[string]bool{}     // whether a path is excluded
	for i := range *lists {
		base := fmt.Sprint("tree", i)
		paths := g.tree()
		lines[base] = g.lines(slices.Collect(maps.Keys(paths)))
		file := filepath.Join(repo, base, ".gitignore")
		if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o777), os.WriteFile(file, []byte(lines[base]), 0o666)); err != nil {
			t.Fatal(err)
		}
		c, err := parse([]string{"-exclude-from", file, "target"})
		if err = cmp.Or(err, c.unread); err != nil {
			t.Fatal(err)
		}
		for _, path := range slices.Sorted(maps.Keys(paths)) { // parents first
			name := filepath.Join(repo, base, path)
			switch paths[path] {
			case "directory":
				err = os.Mkdir(name, 0o777)
			case "link":
				err = os.Symlink(repo, name)
			}
			if err != nil {
				t.Skip(err) // a system that does not have such names
			}
			above := base + "/" + filepath.ToSlash(filepath.Dir(path))
			got[base+"/"+path] = got[above] || c.patterns.exclude(path, paths[path] == "directory")
		}
	}
	excluded := askGit(t, repo, slices.Collect(maps.Keys(got)))
	wrong := 0
	for path, is := range got {
		if is == excluded[path] {
			continue
		}
		base, rel, _ := strings.Cut(path, "/")
		if wrong++; wrong < 10 {
			t.Errorf("seed %d: excluded is %v, to git %v: %q by %q", seed, is, excluded[path], rel, lines[base])
		}
	}
	t.Logf("%d of %d paths are excluded, %d wrong", len(excluded), len(got), wrong)
}

// askGit returns which of paths git excludes.
func askGit(t *testing.T, repo string, paths []string) map[string]bool {
	t.Helper()
	if out, err := exec.Command("git", "init", "-q", repo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("git", "-c", "core.excludesFile=", "check-ignore", "--no-index", "-z", "--stdin")
	cmd.Dir, cmd.Stdin = repo, strings.NewReader(strings.Join(paths, "\x00")+"\x00")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	excluded := map[string]bool{}
	for path := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		excluded[path] = true
	}
	return excluded
}

// A gitignores makes trees, and lists of patterns for them.
type gitignores struct{ *rand.Rand }

func (g gitignores) pick(words ...string) string { return words[g.IntN(len(words))] }

// some returns at most max of the pieces of patterns and names.
func (g gitignores) some(max int) (text string) {
	for range 1 + g.IntN(max) {
		text += g.pick("a", "a", "a", "b", "b", "c", ".", "-", " ", "#", "!", "[", "]", "^", `\`, "*", "?", "\r", "ü", "\xff", "\xfe")
	}
	return text
}

// tree returns paths and what each is of.
func (g gitignores) tree() map[string]string {
	paths, dirs := map[string]string{}, []string{""}
	for range 25 {
		name := g.some(3)
		path := g.pick(dirs...) + name
		if name == "." || name == ".." || paths[path] != "" {
			continue
		}
		paths[path] = g.pick("file", "file", "directory", "directory", "link")
		if paths[path] == "directory" {
			dirs = append(dirs, path+"/")
		}
	}
	return paths
}

// lines returns the text of a .gitignore for paths. Git does not do what its manual says where asterisks that follow
// each other are not all of an element.
func (g gitignores) lines(paths []string) string {
	var text strings.Builder
	text.WriteString(g.pick("", "\ufeff"))
	for range 1 + g.IntN(8) {
		line := g.pick("", "", "", "/") + g.pattern(g.pick(paths...)) + g.pick("", "", "", "/")
		apart := slices.ContainsFunc(strings.Split(line, "/"), func(element string) bool {
			return strings.Contains(element, "**") && strings.Trim(element, "*") != ""
		})
		line = g.pick("", "", "", "!") + line + g.pick("", "", "", " ", "   ")
		var c config
		if !apart && (strings.HasPrefix(line, "#") || errors.Join(c.addPattern(line), c.addPattern(strings.TrimSuffix(line, "\r"))) == nil) {
			text.WriteString(line + g.pick("\n", "\r\n", "\n\n", "\n  \n"))
		}
	}
	return text.String()
}

// pattern returns a pattern that may well be for path, if it is well formed.
func (g gitignores) pattern(path string) string {
	elements := strings.Split(path, "/")
	elements = elements[g.IntN(len(elements)):]
	for i, element := range elements {
		switch g.IntN(8) {
		case 0:
			elements[i] = g.pick("**", "**", "***")
		case 1:
			elements[i] = g.some(4)
		default:
			elements[i] = g.blur(element)
		}
	}
	return strings.Join(elements, "/")
}

// blur returns a pattern for a name.
func (g gitignores) blur(name string) (pattern string) {
	for _, b := range []byte(name) {
		plain := string([]byte{b})
		switch g.IntN(8) {
		case 0:
			pattern += g.pick("?", "*")
		case 1:
			pattern += g.pick("[", "[!", "[^") + g.pick("", "]", "-", "!")
			for range 1 + g.IntN(3) {
				pattern += g.pick(plain, `\`+plain, plain+"-"+plain, "[", "-", "^", `\-`, "a-b", "+--", "+-9", "ü", "\xf0-\xff", `\a-\c`)
			}
			pattern += g.pick("]", "-]")
		case 2:
			pattern += plain
		default:
			if strings.Contains(`*?[\`, plain) || pattern == "" && strings.Contains("#!", plain) || plain == " " {
				pattern += `\`
			}
			pattern += plain
		}
	}
	return pattern
}

// TestUsage holds the usage text to the FlagSet, and README to the usage text.
func TestUsage(t *testing.T) {
	t.Parallel()
	defaults, err := parse([]string{"target"})
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  -([\w-]+) ?(\w*)  .*(?:\n   .*)*`).FindAllStringSubmatch(usage, -1) {
		shown[m[1]] = true
		_, err := parse([]string{"-" + m[1]})
		if got := err != nil && strings.HasPrefix(err.Error(), "flag needs an argument"); got != (m[2] != "") {
			t.Errorf("usage has %q, but the flag alone meets %v", m[0], err)
		}
		if d := regexp.MustCompile(`\(default ([^,)]+)`).FindStringSubmatch(m[0]); d != nil {
			args := []string{"-" + m[1], d[1], "target"}
			if m[1] == "mode" {
				args = append([]string{"-unix", defaults.unix}, args...)
			}
			c := config{}
			if err := c.flags().Parse(args); err != nil || settings(c, m[1]) != settings(defaults, m[1]) {
				t.Errorf("without flags got %s; with -%s %s, the default in usage, %s, %v", settings(defaults, m[1]), m[1], d[1], settings(c, m[1]), err)
			}
		}
	}
	(&config{}).flags().VisitAll(func(f *flag.Flag) {
		if !shown[f.Name] {
			t.Errorf("usage lacks -%s", f.Name)
		}
		delete(shown, f.Name)
	})
	delete(shown, "h") // by package flag
	if len(shown) > 0 {
		t.Errorf("usage has %v, which are no flags", shown)
	}
	if readme := readText(t, "README.md"); !strings.Contains(readme, "\n```\n"+usage+"```\n") {
		t.Errorf("README.md lacks\n%s", usage)
	}
}

// settings returns what the flag of that name has set.
func settings(c config, name string) string {
	return fmt.Sprint(map[string]any{"tcp": c.tcp, "interval": c.interval, "settle": c.settle, "max": c.max}[name])
}

func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// TestTCP follows two clients from the first log line to the last.
func TestTCP(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "target.txt")
	p := start(t, path)
	a := p.subscribe()
	a.hears("waiting", path)
	replace(t, path, "one")
	a.hears("created", path)
	b := p.subscribe()
	b.hears("watching", path)
	for _, text := range []string{"two", "three", ""} {
		replace(t, path, text)
		a.hears("changed", path)
		b.hears("changed", path)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a.hears("removed", path)
	a.Close()
	p.waitLog("subscriber 1 disconnected")
	replace(t, path, "four")
	b.hears("removed", path)
	b.hears("created", path)
	b.Close()
	p.waitLog("subscriber 2 disconnected")
	p.stop()
	want := strings.NewReplacer("PATH", path, "ADDR", p.addr, "A", a.LocalAddr().String(), "B", b.LocalAddr().String()).Replace(
		`net-watcher: waiting for PATH
net-watcher: listening on ADDR
net-watcher: subscriber 1 connected from A (1 connected)
net-watcher: subscriber 2 connected from B (2 connected)
net-watcher: subscriber 1 disconnected (1 connected)
net-watcher: subscriber 2 disconnected (0 connected)
net-watcher: interrupt: closing
`)
	if got := p.log.String(); got != want {
		t.Errorf("got the log\n%swant\n%s", got, want)
	}
}

// TestExposed checks that a server that is not for this machine alone says so.
func TestExposed(t *testing.T) {
	t.Parallel()
	p := start(t, "-tcp", "0.0.0.0:0", "no-such-file")
	p.waitLog("net-watcher: whoever can reach " + p.addr + " can subscribe")
	if !strings.HasPrefix(p.addr, "0.0.0.0:") {
		t.Errorf("listening on %s, want IPv4 only, as asked", p.addr)
	}
	p = start(t, "-tcp", ":0", "no-such-file")
	p.waitLog("net-watcher: whoever can reach " + p.addr + " can subscribe")
}

// A boundListener is a listener that is bound to an address, and nothing else.
type boundListener struct {
	net.Listener
	addr   string
	closed *[]string // gets the address on Close
}

func (ln boundListener) Addr() net.Addr { return &net.UnixAddr{Name: ln.addr} }

func (ln boundListener) Close() error {
	*ln.closed = append(*ln.closed, ln.addr)
	return nil
}

// TestInterruptedLookUp ends the server while it waits for a name server that does not answer.
func TestInterruptedLookUp(t *testing.T) {
	answer := make(chan struct{})
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		<-answer
		return nil, errors.New("no name server")
	}}
	defer func() { close(answer); net.DefaultResolver = before }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-tcp", "no-such-host.test:0", "x"}, io.Discard, io.Discard) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got the error %v, want none", err)
		}
	case <-time.After(longEnough):
		t.Error("the name is still looked up")
	}
}

// TestBindAll binds the addresses of a name on systems that have them, or not.
func TestBindAll(t *testing.T) {
	t.Parallel()
	const v4, v6 = "127.0.0.1", "::1"
	lacking, used := syscall.EADDRNOTAVAIL, syscall.EADDRINUSE
	for _, tt := range []struct {
		name   string
		hosts  []string
		port   string
		errs   map[string]error // of addresses
		want   []string
		closed []string
		err    error
	}{
		{"both", []string{v4, v6}, "80", nil, []string{"127.0.0.1:80", "[::1]:80"}, nil, nil},
		{"one port for both", []string{v4, v6}, "0", nil, []string{"127.0.0.1:1001", "[::1]:1001"}, nil, nil},
		{"no IPv6", []string{v4, v6}, "80", map[string]error{"[::1]:80": lacking}, []string{"127.0.0.1:80"}, nil, nil},
		{"no IPv6 at all", []string{v4, v6}, "0", map[string]error{"[::1]:1001": syscall.EAFNOSUPPORT}, []string{"127.0.0.1:1001"}, nil, nil},
		{"no IPv6 on Windows", []string{v4, v6}, "80", map[string]error{"[::1]:80": syscall.Errno(10049)}, []string{"127.0.0.1:80"}, nil, nil},
		{"no IPv6 at all on Windows", []string{v4, v6}, "80", map[string]error{"[::1]:80": syscall.Errno(10047)}, []string{"127.0.0.1:80"}, nil, nil},
		{"another order, and twice", []string{v6, v4, v6}, "80", nil, []string{"127.0.0.1:80", "[::1]:80"}, nil, nil},
		{"twice, picked port in use", []string{v6, v4, v6}, "0", map[string]error{"[::1]:1001": used}, []string{"127.0.0.1:1002", "[::1]:1002"}, []string{"127.0.0.1:1001"}, nil},
		{"no IPv4", []string{v4, v6}, "0", map[string]error{"127.0.0.1:0": lacking}, []string{"[::1]:1001"}, nil, nil},
		{"nothing", []string{v4, v6}, "0", map[string]error{"127.0.0.1:0": lacking, "[::1]:0": lacking}, nil, nil, lacking},
		{"first in use", []string{v4, v6}, "80", map[string]error{"127.0.0.1:80": used}, nil, nil, used},
		{"second in use", []string{v4, v6}, "80", map[string]error{"[::1]:80": used}, nil, []string{"127.0.0.1:80"}, used},
		{"picked port in use", []string{v4, v6}, "0", map[string]error{"[::1]:1001": used, "[::1]:1002": used}, []string{"127.0.0.1:1003", "[::1]:1003"}, []string{"127.0.0.1:1001", "127.0.0.1:1002"}, nil},
		{"no port to pick", []string{v4}, "0", map[string]error{"127.0.0.1:0": used}, nil, nil, used},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var bound, closed []string
			picked := 1000
			listeners, err := bindAll(tt.hosts, tt.port, func(address string) (net.Listener, error) {
				if err := tt.errs[address]; err != nil {
					return nil, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", err)}
				}
				if host, port, _ := net.SplitHostPort(address); port == "0" {
					picked++
					address = net.JoinHostPort(host, strconv.Itoa(picked))
				}
				return boundListener{addr: address, closed: &closed}, nil
			})
			for _, ln := range listeners {
				bound = append(bound, ln.Addr().String())
			}
			if !slices.Equal(bound, tt.want) || !slices.Equal(closed, tt.closed) || !errors.Is(err, tt.err) {
				t.Errorf("got %v, %v and closed %v; want %v, %v and %v", bound, err, closed, tt.want, tt.err, tt.closed)
			}
		})
	}
}

// TestLocalhost connects to every address that localhost has here.
func TestLocalhost(t *testing.T) {
	t.Parallel()
	hosts, err := net.DefaultResolver.LookupHost(t.Context(), "localhost")
	if err != nil {
		t.Skip(err)
	}
	p := start(t, "-tcp", "localhost:0", "no-such-file")
	_, port, _ := net.SplitHostPort(p.addr)
	for _, host := range hosts {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Log(err)
			continue
		}
		ln.Close()
		at := net.JoinHostPort(host, port)
		p.waitLog("net-watcher: listening on " + at)
		dialPeer(t, "tcp", at).hears("waiting", "no-such-file")
	}
}

// TestManyTargets has more to log at the start than a log writer keeps.
func TestManyTargets(t *testing.T) {
	t.Parallel()
	var targets []string
	for i := range 3000 {
		targets = append(targets, fmt.Sprint("no-such-file/", i))
	}
	a := start(t, append([]string{"-interval", "1h"}, targets...)...).subscribe()
	for _, name := range targets {
		a.hears("waiting", name)
	}
}

var (
	jsonTime    = `"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`
	jsonStarted = `,"started":` + jsonTime
	jsonPath    = `,"path":".*a&b\.txt"`
	jsonFile    = `,"size":\d+,"mtime":"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"`
)

// TestJSON checks which fields a line has, in what order, and that they let a
// client who was away know whether it has missed anything.
func TestJSON(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a&b.txt")
	p := start(t, "-json", path)
	a, b := p.subscribe(), p.subscribe()
	hear := func(p *peer, verb string, seq uint64, form string) jsonRecord {
		t.Helper()
		line := p.line()
		if form = `^\{"type":"` + verb + `","time":` + jsonTime + `,"seq":` + fmt.Sprint(seq) + form + `\}$`; !regexp.MustCompile(form).MatchString(line) {
			t.Fatalf("got %s, want %s", line, form)
		}
		return decodeRecord(t, line)
	}
	before := hear(a, "waiting", 0, jsonStarted+jsonPath)
	hear(b, "waiting", 0, jsonStarted+jsonPath)
	replace(t, path, "hello\n")
	r := hear(a, "created", 1, jsonPath+jsonFile)
	hear(b, "created", 1, jsonPath+jsonFile)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := fi.ModTime().UTC().Format("2006-01-02T15:04:05.000000000Z"); r.Path != path || *r.Size != 6 || r.Mtime != want {
		t.Errorf("got %s, size %d, mtime %s, want %s, 6, %s", r.Path, *r.Size, r.Mtime, path, want)
	}

	a.Close()
	if a = p.subscribe(); hear(a, "watching", 1, jsonStarted+jsonPath+jsonFile).Started != before.Started {
		t.Error("started is not the same at both connections")
	}
	a.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	hear(b, "removed", 2, jsonPath)
	if hear(p.subscribe(), "waiting", 2, jsonStarted+jsonPath).Started != before.Started {
		t.Error("started is not the same at both connections")
	}

	p.stop()
	until(t, func() bool { return time.Now().UTC().Format(timeFormat) > before.Started }, "next millisecond")
	if hear(start(t, "-json", path).subscribe(), "waiting", 0, jsonStarted+jsonPath).Started == before.Started {
		t.Error("started is the same for another server")
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "target.txt")
	replace(t, path, "one")
	p := start(t, path)
	half, full := p.subscribe(), p.subscribe()
	half.hears("watching", path)
	full.hears("watching", path)
	if err := half.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	half.hears("watching", path)
	full.Close() // nothing changes meanwhile, so only asking finds out
	p.waitLog("subscriber 2 disconnected (1 connected)")
	for _, text := range []string{"two", "three", "four"} {
		replace(t, path, text)
		half.hears("changed", path)
	}
	half.Close()
	until(t, func() bool {
		replace(t, path, "more")
		return strings.Contains(p.log.String(), "subscriber 1 disconnected (0 connected)")
	}, "end of who had half closed")
}

// TestGarbage lets a client send much, and then reset the connection.
func TestGarbage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "target.txt")
	p := start(t, path)
	noisy, other := p.subscribe(), p.subscribe()
	noisy.hears("waiting", path)
	other.hears("waiting", path)
	garbage := bytes.Repeat([]byte("GET / HTTP/1.1\r\n\x00\xff\x1b[2J"), 20<<20/24)
	noisy.SetWriteDeadline(time.Now().Add(longEnough))
	if n, err := noisy.Write(garbage); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(garbage), err)
	}
	replace(t, path, "one")
	noisy.hears("created", path)
	other.hears("created", path)
	if err := errors.Join(noisy.Conn.(*net.TCPConn).SetLinger(0), noisy.Close()); err != nil {
		t.Fatal(err)
	}
	p.waitLog("subscriber 1 disconnected (1 connected)")
	replace(t, path, "two")
	other.hears("changed", path)
}

// TestCounts has many leave at once: the log counts them down in order.
func TestCounts(t *testing.T) {
	t.Parallel()
	p := start(t, "no-such-file")
	var peers []*peer
	for range 200 {
		peers = append(peers, p.subscribe())
	}
	p.waitLog("(200 connected)")
	for _, peer := range peers {
		go peer.Close()
	}
	p.waitLog("disconnected (0 connected)")
	_, left, _ := strings.Cut(p.log.String(), "(200 connected)\n")
	want := len(peers)
	for line := range strings.Lines(left) {
		want--
		if !strings.HasSuffix(line, fmt.Sprintf(" disconnected (%d connected)\n", want)) {
			t.Fatalf("got %q, want %d connected", line, want)
		}
	}
}

func TestMax(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "target.txt")
	p := start(t, "-max", "1", path)
	first := p.subscribe()
	first.hears("waiting", path)
	second := p.subscribe()
	replace(t, path, "one")
	first.hears("created", path)
	first.Close()
	second.hears("watching", path)
	replace(t, path, "two")
	second.hears("changed", path)
	second.Close()
	p.waitLog("subscriber 2 disconnected (0 connected)")
	if got := p.log.String(); strings.Contains(got, "(2 connected)") {
		t.Errorf("got two at a time:\n%s", got)
	}
}

// TestSuspended lets a client sleep through thousands of changes that another
// one hears of.
func TestSuspended(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files []*os.File
	for i := range 10 {
		f, err := os.Create(filepath.Join(dir, strings.Repeat("long", 50)+fmt.Sprint(i))) // lines that soon fill the buffers
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	p := start(t, "-json", dir)
	slow, fast := p.subscribe(), p.subscribe()
	slow.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	slow.line()
	fast.line()
	got, want, seq, heard := map[string]int64{}, map[string]int64{}, uint64(0), uint64(0)
	for size := range int64(100) {
		for _, f := range files {
			if _, err := f.WriteString("x"); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			for want[f.Name()] <= size {
				seq = fast.size(want, seq)
			}
		}
	}
	slow.Conn.(*net.TCPConn).SetReadBuffer(1 << 20) // or each piece of what it has left would wait for a delayed ACK
	for at := uint64(0); at < seq; heard++ {
		at = slow.size(got, at)
	}
	if !maps.Equal(got, want) || heard == seq {
		t.Errorf("got the sizes %v from %d of %d changes, want %v from fewer", got, heard, seq, want)
	}
}

// size reads a line and notes the size in it. It returns its seq, which must be after before.
func (p *peer) size(sizes map[string]int64, before uint64) uint64 {
	p.t.Helper()
	r := decodeRecord(p.t, p.line())
	if r.Seq <= before || r.Size == nil {
		p.t.Fatalf("got %+v after seq %d, want a later one with a size", r, before)
	}
	sizes[r.Path] = *r.Size
	return r.Seq
}

// TestShutdown ends the program while somebody has not read so much as the greeting.
func TestShutdown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var targets []string
	for i := range 900 {
		targets = append(targets, filepath.Join(dir, fmt.Sprint(strings.Repeat("long", 50), i)))
	}
	p := start(t, append([]string{"-interval", "20ms"}, targets...)...)
	stuck := p.subscribe()
	stuck.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	reading := p.subscribe()
	for _, path := range targets {
		reading.hears("waiting", path)
	}
	replace(t, targets[0], "one")
	reading.hears("created", targets[0])
	p.stop()
	reading.SetReadDeadline(time.Now().Add(longEnough))
	if rest, err := io.ReadAll(reading.lines); len(rest) > 0 || err != nil {
		t.Errorf("got %q and %v at the end, want nothing more", rest, err)
	}
	if got := p.log.String(); !strings.Contains(got, "net-watcher: interrupt: closing\n") {
		t.Errorf("got the log\n%swithout the signal in it", got)
	}
	if conn, err := net.Dial("tcp", p.addr); err == nil {
		conn.Close()
		t.Error("got a connection after the end")
	}
}

// A failingListener fails to accept at first.
type failingListener struct {
	*pipeListener
	failures int
	tries    []time.Duration
	began    time.Time
}

func (ln *failingListener) Accept() (net.Conn, error) {
	if len(ln.tries) == ln.failures {
		return ln.pipeListener.Accept()
	}
	ln.tries = append(ln.tries, time.Since(ln.began))
	return nil, syscall.EMFILE
}

// TestBackOff lets Accept fail for a time, which is logged once.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := &failingListener{pipeListener: newPipeListener(), failures: 10, began: time.Now()}
		ln.dial("j")
		var logged logText
		failing := false
		next := func() {
			t.Helper()
			if accept(t.Context(), ln, &failing, log.New(&logged, "", 0)) == nil {
				t.Error("accepted nobody")
			}
		}
		next()
		want := []time.Duration{0, 5, 15, 35, 75, 155, 315, 635, 1275, 2275}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(ln.tries, want) {
			t.Errorf("tried after %v, want %v", ln.tries, want)
		}
		for _, failures := range []int{11, 11, 12} { // the same spell, its end, and another one
			ln.failures = failures
			ln.dial("k")
			next()
			const line = "too many open files; trying again\n"
			if got, want := logged.String(), strings.Repeat(line, failures/12+1); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
	})
}

// TestEnd ends the server while a subscriber does not read, a stat hangs and another
// is about to fail. That it ends is the last line of the log.
func TestEnd(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "hung/a", "slow/b")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/hung/a", dir+"/slow/b")
		release := make(chan struct{})
		var failing atomic.Bool
		c.stat = func(name string) (os.FileInfo, error) {
			switch {
			case name == dir+"/hung/a":
				<-release
			case failing.Load():
				time.Sleep(300 * time.Millisecond)
				return nil, syscall.EIO
			}
			return os.Stat(name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ln, logged, stopped := launch(ctx, c)
		time.Sleep(3 * patience)
		ln.dial("j") // and never reads
		failing.Store(true)
		time.Sleep(260 * time.Millisecond) // a poll is under way, and will log that error
		start := time.Now()
		cancel()
		<-stopped
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v to end", took)
		}
		close(release)
		time.Sleep(time.Hour)
		if got := logged.String(); !strings.HasSuffix(got, "context canceled: closing\n") {
			t.Errorf("logged %q, with something after the signal", got)
		}
	})
}

// TestGOGC has the user choose how much garbage there may be. It is not parallel, for the choice is the process's.
func TestGOGC(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		env  string
		want int
	}{{"", gcPercent}, {"80", 77}} {
		t.Setenv("GOGC", tt.env)
		was := debug.SetGCPercent(77) // as the runtime would have by itself
		watch(ctx, configure(t, "x"), nil, log.New(io.Discard, "", 0))
		if got := debug.SetGCPercent(was); got != tt.want {
			t.Errorf("GOGC=%s: got %d percent, want %d", tt.env, got, tt.want)
		}
	}
}

// TestAbsolute drops what NFS does not ask its server about, and keeps what may lead elsewhere.
func TestAbsolute(t *testing.T) {
	for _, tt := range []struct{ dir, name, want string }{
		{"/d", "a", "/d/a"},
		{"/d", "./a", "/d/a"},
		{"/d", ".", "/d/"},
		{"/d", "a/./b/.", "/d/a/b/"},
		{"/d", "a/../b/", "/d/a/../b/"},
		{"/d", "/a/.", "/a/"},
		{"", "./a", "a"},
		{"", ".", "."},
	} {
		if got := absolute(tt.dir, tt.name); got != tt.want {
			t.Errorf("absolute(%q, %q): got %q, want %q", tt.dir, tt.name, got, tt.want)
		}
	}
}

// TestLogWriter checks that a log that nobody reads holds up nobody.
func TestLogWriter(t *testing.T) {
	t.Parallel()
	r, unread := io.Pipe()
	logger, flush := newLog(unread)
	for i := range 2 * maxUnwritten {
		logger.Print(i)
	}
	if kept := len(logger.Writer().(logLines)); kept != maxUnwritten {
		t.Errorf("got %d lines kept, want %d", kept, maxUnwritten)
	}
	flush()
	line, err := bufio.NewReader(r).ReadString('\n')
	if line != "net-watcher: 0\n" || err != nil {
		t.Errorf("got %q and %v, want the first line", line, err)
	}
	r.Close()
}

// A journalTest is a journal whose only deliverer is the test.
type journalTest struct{ *journal }

func newJournalTest(t testing.TB, list bool) journalTest {
	l := journalTest{newJournal(config{targets: []string{"x"}, pollConfig: pollConfig{list: list}}, log.New(t.Output(), "", 0))}
	l.deliverers = 1
	return l
}

// enter adds a subscriber.
func (l journalTest) enter() *subscriber {
	conn, _ := net.Pipe()
	return l.journal.join(conn, conn.RemoteAddr())
}

// join adds a subscriber that has been greeted.
func (l journalTest) join() *subscriber {
	s := l.enter()
	l.next(s)
	return s
}

// say appends a change with n paths, numbered from first.
func (l journalTest) say(verb string, first, n int) {
	var changes []change
	for i := range n {
		r := change{path: fmt.Sprintf("x/%06d", first+i), created: verb == "created"}
		if verb != "removed" {
			r.stamp.kind = file
		}
		changes = append(changes, r)
	}
	l.append(changes)
}

// all returns what s has not read, and in how many pieces it comes.
func (l journalTest) all(s *subscriber) (lines string, pieces int) {
	for s.at < l.seq {
		lines += string(l.next(s))
		pieces++
	}
	return lines, pieces
}

// TestPieces reads a long catch-up, which comes in pieces. What was born after
// its start is created, whatever the cursor has passed by then.
func TestPieces(t *testing.T) {
	l := newJournalTest(t, false)
	s := l.join()
	l.say("created", 0, 10_000)
	first := l.next(s)
	l.say("changed", 0, 10_000)
	rest, pieces := l.all(s)
	if again, _ := l.all(s); again != "" || s.base != l.seq {
		t.Errorf("at the end the cursor is %v of %d, and %q is left", s.cursor, l.seq, again)
	}
	if pieces < 2 || len(first) > maxSpan+100 {
		t.Errorf("the first of %d pieces has %d bytes, want several of about %d", pieces+1, len(first), maxSpan)
	}
	if got := strings.Count(rest, "created"); got != 10_000 {
		t.Errorf("%d lines say created, want 10000", got)
	}
}

// TestTurns has two who are due more than once: they take turns, in the order in which they came to be due, and
// nobody is twice in the queue.
func TestTurns(t *testing.T) {
	l := newJournalTest(t, false)
	a, b, c := l.enter(), l.enter(), l.enter()
	served := func(want ...*subscriber) {
		t.Helper()
		var got []int
		for _, s := range want {
			taken := l.take()
			got = append(got, taken.id)
			if taken != s || taken.due != true {
				t.Fatalf("got the subscribers %v, want %d last", got, s.id)
			}
			l.next(taken)
		}
	}
	served(a)
	l.rouse(a) // it is in hand
	served(b, c)
	if l.first != nil {
		t.Fatalf("got subscriber %d, want none", l.first.id)
	}
	a.due, b.due, c.due = false, false, false
	l.rouse(c)
	l.say("changed", 0, 1)
	served(c, a)
	a.due = false
	l.rouse(a)
	served(b, a)
	l.writing = 1
	if l.relieve(); l.first != nil || l.deliverers != 1 {
		t.Errorf("got %d deliverers and subscriber %v in the queue, want one and none", l.deliverers, l.first)
	}
}

// TestLeftInQueue has a subscriber leave that is due. It is sent nothing, and the other one is the last to catch up.
func TestLeftInQueue(t *testing.T) {
	l := newJournalTest(t, false)
	a, b := l.join(), l.join()
	l.say("changed", 0, 1)
	l.leave(a)
	if lines := l.next(a); lines != nil {
		t.Errorf("got %q for who has left, want nothing", lines)
	}
	l.all(b)
	if len(l.records) != 0 {
		t.Errorf("%d records are kept when all is read", len(l.records))
	}
}

// A slowConn takes a second for each write, whatever deadline it has.
type slowConn struct {
	net.Conn
	written *atomic.Int32
}

func (c slowConn) Write(b []byte) (int, error) {
	time.Sleep(time.Second)
	c.written.Add(1)
	return len(b), nil
}

// TestEndOfDeliverers ends the server while a deliverer writes: watch waits for it. It ends at once if none does.
func TestEndOfDeliverers(t *testing.T) {
	for _, slow := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ln, _, stopped := launch(ctx, configure(t, "-interval", "1h", "no-such-file"))
			conn, far := net.Pipe()
			var written atomic.Int32
			if slow {
				ln.conns <- slowConn{conn, &written}
				synctest.Wait()
				conn.Close() // and so it leaves
			} else {
				ln.conns <- conn
				bufio.NewReader(far).ReadString('\n')
			}
			synctest.Wait()
			start := time.Now()
			cancel()
			<-stopped
			if slow && written.Load() == 0 {
				t.Error("a deliverer is left behind")
			}
			if took := time.Since(start); !slow && took > 0 {
				t.Errorf("took %v to end with nothing to send", took)
			}
			time.Sleep(2 * time.Hour) // pollers are not waited for
		})
	}
}

// A brokenConn cannot be written to, though nothing is wrong with reading.
type brokenConn struct{ net.Conn }

func (c brokenConn) Write(b []byte) (int, error) { return len(b) / 2, io.ErrShortWrite }

// TestBrokenWrite has a write fail, after which the rest of a line may be missing. The subscriber must go.
func TestBrokenWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, logged := begin(t, configure(t, "no-such-file"))
		conn, _ := net.Pipe()
		ln.conns <- brokenConn{conn}
		synctest.Wait()
		want := "subscriber 1 connected from pipe (1 connected)\nsubscriber 1 disconnected (0 connected)\n"
		if got := logged.String(); !strings.HasSuffix(got, want) {
			t.Errorf("logged %q, want %q at the end", got, want)
		}
	})
}

// A resetConn cannot be read, though nothing is wrong with writing.
type resetConn struct{ slowConn }

func (c resetConn) Read(b []byte) (int, error) { return 0, syscall.ECONNRESET }

// TestReset has a read fail, and not for the end of what is sent. The subscriber is gone, so it is not probed.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, logged := begin(t, configure(t, "no-such-file"))
		conn, _ := net.Pipe()
		ln.conns <- resetConn{slowConn{conn, new(atomic.Int32)}}
		synctest.Wait()
		want := "subscriber 1 connected from pipe (1 connected)\nsubscriber 1 disconnected (0 connected)\n"
		if got := logged.String(); !strings.HasSuffix(got, want) {
			t.Errorf("logged %q, want %q at the end", got, want)
		}
	})
}

// TestDeliverersEnd sees that a server whose subscribers have all they are to get has no deliverers left, with a
// reader who is suspended one, and that each is back when something changes.
func TestDeliverersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(config{targets: []string{"x"}}, log.New(t.Output(), "", 0))
		ln := newPipeListener()
		serveJournal(t, ln, j, 3)
		suspended, a, b := ln.dial("suspended"), ln.dial("a"), ln.dial("b")
		check := func(verb string, deliverers int) {
			t.Helper()
			synctest.Wait()
			for _, c := range []*client{a, b} {
				if got := verbs(c.drain()); got != verb+" x\n" {
					t.Errorf("%s got %q, want %s", c.name, got, verb)
				}
			}
			synctest.Wait()
			j.mu.Lock()
			defer j.mu.Unlock()
			if j.deliverers != deliverers || j.writing != deliverers || j.first != nil {
				t.Errorf("got %d deliverers, %d in a write, with %v in the queue; want %d, all in a write, and none", j.deliverers, j.writing, j.first, deliverers)
			}
		}
		x := change{path: "x", root: true, stamp: stamp{kind: file}}
		check("waiting", 1)
		j.append([]change{x})
		check("changed", 1)
		if got := verbs(suspended.drain()); got != "waiting x\nchanged x\n" {
			t.Errorf("who was suspended got %q, want the greeting and the change", got)
		}
		j.append([]change{x})
		check("changed", 1)
		suspended.drain()
		synctest.Wait()
		if j.deliverers != 0 || j.writing != 0 {
			t.Errorf("got %d deliverers, %d in a write, want none", j.deliverers, j.writing)
		}
	})
}

// TestRelief has twenty readers suspended at the same change. The one behind them waits for the first write that
// lasts, and for no other. Once they have stopped, it waits for none of them.
func TestRelief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(configure(t, "x"), log.New(t.Output(), "", 0))
		ln := newPipeListener()
		serveJournal(t, ln, j, 21)
		var suspended []*client
		for range 20 {
			suspended = append(suspended, ln.dial("suspended"))
		}
		reader := ln.dial("reader")
		synctest.Wait()
		for _, c := range append(suspended, reader) {
			c.drain()
		}
		for _, want := range []time.Duration{longWrite, 0} {
			j.append([]change{{path: "x", root: true, stamp: stamp{kind: file}}})
			start := time.Now()
			reader.down.SetReadDeadline(start.Add(time.Second))
			_, err := reader.down.Read(make([]byte, 100))
			if took := time.Since(start); took != want || err != nil {
				t.Errorf("got %v and the error %v, want %v", took, err, want)
			}
		}
		for _, c := range suspended {
			c.drain()
		}
		time.Sleep(2 * longWrite)
		j.mu.Lock()
		if j.eager || j.deliverers != 0 {
			t.Errorf("got %d deliverers, eager: %v; want none", j.deliverers, j.eager)
		}
		j.mu.Unlock()
	})
}

// TestForgetting sees that records go when all have read them, and take the place
// of those before them.
func TestForgetting(t *testing.T) {
	t.Parallel()
	l := newJournalTest(t, false)
	l.say("changed", 0, 100)
	if len(l.records) != 0 {
		t.Errorf("%d records are kept for nobody", len(l.records))
	}
	fast, slow := l.join(), l.join()
	for range 1000 {
		l.say("changed", 0, 100)
		l.all(fast)
		if len(l.byPath) != 100 || len(l.records) > 2*100+2000 {
			t.Fatalf("%d records are kept of 100 paths", len(l.records))
		}
	}
	if lines, _ := l.all(slow); strings.Count(lines, "\n") != 100 {
		t.Errorf("who was slow read %d lines, want 100", strings.Count(lines, "\n"))
	}
	if len(l.records)+len(l.byPath)+len(l.spans) != 0 {
		t.Errorf("%d records, %d paths and %d spans are kept when all is read", len(l.records), len(l.byPath), len(l.spans))
	}
	l.say("changed", 0, 100)
	l.all(fast)
	l.leave(slow)
	if len(l.records)+len(l.byPath)+len(l.spans) != 0 {
		t.Errorf("%d records are kept when all who had not read them have left", len(l.records))
	}
}

// TestLimit has more changes than are kept: who has not read those before the
// latest poll is disconnected, slowest first, until they fit.
func TestLimit(t *testing.T) {
	l := newJournalTest(t, false)
	l.limit = 100
	slowest, slow, fast := l.join(), l.join(), l.join()
	l.say("changed", 0, 60)
	l.all(slow)
	l.say("changed", 60, 30)
	l.all(fast)
	l.say("changed", 90, 30)
	if !slowest.left || slow.left || fast.left {
		t.Errorf("connected: slowest %v, slow %v, fast %v; want the last two", !slowest.left, !slow.left, !fast.left)
	}
	if _, err := slowest.conn.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v from a write to the slowest, want it ended", err)
	}
	l.all(slow)
	l.all(fast)
	l.say("created", 1000, 500)
	if slow.left || fast.left {
		t.Error("disconnected for what one poll brought")
	}
	if lines, _ := l.all(fast); strings.Count(lines, "\n") != 500 {
		t.Errorf("%d lines, want 500", strings.Count(lines, "\n"))
	}
}

// TestGreetingsShared has 500 subscribers join, and half-close: they share the bytes of the greeting, which
// for each alone were 110 MB with 2,000 targets.
func TestGreetingsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newJournalTest(t, false)
		greeted := map[*byte]bool{}
		var subs []*subscriber
		for range 500 {
			s := l.enter()
			lines := l.next(s)
			greeted[&lines[0]] = true
			subs = append(subs, s)
		}
		for _, s := range subs {
			l.greetAgain(s)
			lines := l.next(s)
			greeted[&lines[0]] = true
		}
		if len(greeted) != 1 {
			t.Errorf("the greeting was encoded %d times, want once", len(greeted))
		}

		// After a change it says what is true then.
		l.append([]change{{path: "x", root: true, created: true, stamp: stamp{kind: file}}})
		late := l.enter()
		if lines := l.next(late); !strings.HasPrefix(string(lines), "watching ") {
			t.Errorf("got the greeting %q, want that x is there", lines)
		}
	})
}

// TestGreetAgain has a subscriber half-close when there is something to send. That serves as well to learn
// whether it is there, so it is not greeted.
func TestGreetAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(journalTest, *subscriber)
	}{
		{"change before", func(l journalTest, s *subscriber) { l.say("changed", 0, 1); l.greetAgain(s) }},
		{"change after", func(l journalTest, s *subscriber) { l.greetAgain(s); l.say("changed", 0, 1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newJournalTest(t, false)
			s := l.join()
			tt.do(l, s)
			lines := l.next(s)
			if more := l.next(s); !strings.HasPrefix(string(lines), "changed ") || more != nil {
				t.Errorf("got %q and then %q, want the change and nothing", lines, more)
			}
		})
	}
}

// TestOneRecord has one path change until its records are compacted away, while a subscriber does not read.
// It is told of that path once.
func TestOneRecord(t *testing.T) {
	l := newJournalTest(t, false)
	slow := l.join()
	l.say("changed", 1, 1)
	for range 5000 {
		l.say("changed", 0, 1)
	}
	l.say("changed", 1, 1)
	if lines, _ := l.all(slow); strings.Count(lines, "\n") != 2 {
		t.Errorf("got %d lines of two paths:\n%s", strings.Count(lines, "\n"), lines)
	}
}

// TestList reads a list of many pieces, while paths change that are in the pieces read, and in those to come.
func TestList(t *testing.T) {
	l := newJournalTest(t, true)
	l.append([]change{{path: "x/", root: true, created: true, stamp: stamp{kind: directory}}})
	l.say("created", 0, 10_000)
	l.open()
	fast := l.enter()
	l.all(fast)
	l.next(fast) // the greeting
	s := l.enter()
	first := l.next(s)
	l.say("changed", 0, 1)
	l.say("changed", 9_999, 1)
	l.say("removed", 1, 1)
	l.say("removed", 9_998, 1)
	l.say("removed", 10_000, 1) // which was never there
	l.say("created", 10_001, 1)
	rest, pieces := l.all(s)
	greeting := l.next(s)
	if pieces < 2 || len(first) > maxSpan+100 || !strings.HasPrefix(string(greeting), "watching ") {
		t.Errorf("got %d pieces, the first of %d bytes, and then %.50q; want several, of about %d, and the greeting", pieces, len(first), greeting, maxSpan)
	}
	told := map[string]bool{}
	for line := range strings.Lines(string(first) + rest) {
		var verb, at, path string
		fmt.Sscan(line, &verb, &at, &path)
		switch {
		case len(told) == 0 && path != "x/":
			t.Errorf("got %q first, want the directory", line)
		case verb == "removed":
			delete(told, path)
		case verb == "changed" && !told[path]:
			t.Errorf("got %q of what had not been told", line)
		default:
			told[path] = true
		}
	}
	if len(told) != 1+10_000-2+1 || told["x/000001"] || told["x/009998"] || !told["x/010001"] {
		t.Errorf("told of %d paths, want what is there: 10,000", len(told))
	}
	if lines, _ := l.all(fast); strings.Count(lines, "\n") != 6 {
		t.Errorf("whoever had the list got %q, want what has changed since", lines)
	}
	last := l.enter()
	if lines, _ := l.all(last); strings.Count(lines, "created ") != len(told) || strings.Contains(lines, "removed") {
		t.Errorf("who joins last got %d lines, want %d, and none of what is gone", strings.Count(lines, "\n"), len(told))
	}
	l.say("removed", 0, 10_002)
	for _, s := range l.subs {
		l.all(s)
	}
	if len(l.records) != 1 || len(l.byPath) != 1 {
		t.Errorf("%d records and %d paths are kept, want those of what is there: 1", len(l.records), len(l.byPath))
	}
}

// TestListLimit leaves a long list unread. Nobody is disconnected for that, as what is there does not count.
func TestListLimit(t *testing.T) {
	l := newJournalTest(t, true)
	l.limit = 100
	l.say("created", 0, 1000)
	l.open()
	s := l.enter()
	for i := range 10 {
		l.say("changed", i*100, 100)
	}
	l.say("created", 1000, 1000)
	if s.left {
		t.Error("disconnected for what is there")
	}
	l.say("removed", 0, 1000)
	l.say("changed", 1999, 1)
	if !s.left {
		t.Error("connected, though it has left more removals unread than are kept")
	}
}

// TestListLimitLate has a subscriber join when removals are unread. Those are not for it, so it is not the one to go.
func TestListLimitLate(t *testing.T) {
	l := newJournalTest(t, true)
	l.limit = 100
	l.say("created", 0, 200)
	l.open()
	early := l.enter()
	l.all(early)
	l.say("removed", 0, 60)
	late := l.enter()
	l.say("removed", 60, 60)
	if !early.left || late.left {
		t.Errorf("connected: early %v, late %v; want the second", !early.left, !late.left)
	}
}

// BenchmarkList measures a list of 100,000 paths beside its limit, which is to encode its lines once.
func BenchmarkList(b *testing.B) {
	l := newJournalTest(b, true)
	l.logger.SetOutput(io.Discard)
	var changes []change
	for i := range 100_000 {
		changes = append(changes, change{path: fmt.Sprintf("x/%06d", i), created: true, stamp: stamp{kind: file}})
	}
	l.append(changes)
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s := l.enter()
			for s.greeting == nil {
				l.next(s)
			}
			l.leave(s)
		}
	})
	b.Run("limit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var lines []byte
			for _, r := range l.records {
				lines = l.format.line(lines, "created", r.change, r.seq)
			}
		}
	})
}

// BenchmarkSubscriber measures the memory that a subscriber takes. Those over TCP
// stay until the end, for those over Unix sockets would get their stacks.
func BenchmarkSubscriber(b *testing.B) {
	const n = 1000
	for _, network := range []string{"tcp", "unix"} {
		ln, a := listenAndDial(b, network, n)
		before := memory()
		serveAudience(b, ln, a)
		each := float64(memory()-before) / n
		b.Run(network, func(b *testing.B) {
			b.ReportMetric(each, "B/subscriber")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkFanOut measures one change on its way to all subscribers beside its
// limit, which is one write to each connection. Both include the reading.
func BenchmarkFanOut(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		for _, n := range []int{100, 1000} {
			b.Run(fmt.Sprintf("%s-%d", network, n), func(b *testing.B) {
				b.Run("change", func(b *testing.B) { benchmarkChange(b, network, n) })
				b.Run("limit", func(b *testing.B) { benchmarkWrites(b, network, n) })
			})
		}
	}
}

func benchmarkChange(b *testing.B, network string, n int) {
	ln, a := listenAndDial(b, network, n)
	j := serveAudience(b, ln, a)
	b.ReportAllocs()
	for b.Loop() {
		a.hear(func() {
			j.append([]change{{path: "x", root: true, stamp: stamp{kind: file}, time: time.Now().UnixMilli()}})
		})
	}
}

// serveJournal serves size subscribers of j on ln until t ends.
func serveJournal(t testing.TB, ln net.Listener, j *journal, size int) {
	var serving sync.WaitGroup
	serving.Go(func() { serve(context.Background(), ln, j, &slots{taken: make(chan struct{}, size)}) })
	t.Cleanup(func() {
		j.close()
		ln.Close()
		serving.Wait()
		j.delivering.Wait()
	})
}

// serveAudience serves those who wait in the backlog of ln until b ends. They have
// been greeted when it returns.
func serveAudience(b *testing.B, ln net.Listener, a *audience) *journal {
	logger := log.New(io.Discard, "", 0)
	l := newJournal(configure(b, "x"), logger)
	l.open()
	serveJournal(b, ln, l, int(a.size))
	a.hear(func() {}) // the greeting
	return l
}

func benchmarkWrites(b *testing.B, network string, n int) {
	ln, a := listenAndDial(b, network, n)
	var conns []net.Conn
	for range n {
		conn, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	line := []byte("changed 2006-01-02T15:04:05.000Z x\n")
	b.ReportAllocs()
	for b.Loop() {
		a.hear(func() {
			for _, conn := range conns {
				conn.Write(line)
			}
		})
	}
}

// An audience is connections that are read, and count the lines.
type audience struct {
	size  int64
	lines atomic.Int64
	heard chan struct{} // gets a token when all have heard a line
}

// listenAndDial returns a listener and n connections that wait in its backlog.
func listenAndDial(b *testing.B, network string, n int) (net.Listener, *audience) {
	dir, err := os.MkdirTemp("", "nw") // b.TempDir can be too long for a socket
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": dir + "/s"}[network])
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	a := &audience{size: int64(n), heard: make(chan struct{}, 1)}
	for range n {
		conn, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		go a.listen(conn)
	}
	return ln, a
}

func (a *audience) listen(conn net.Conn) {
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		lines := int64(bytes.Count(buf[:n], []byte("\n")))
		if a.lines.Add(lines) == a.size {
			a.lines.Add(-a.size)
			a.heard <- struct{}{}
		}
	}
}

// hear calls say and returns when all have heard a line.
func (a *audience) hear(say func()) {
	say()
	<-a.heard
}

// FuzzLine checks that any change is one line that tells all of it.
func FuzzLine(f *testing.F) {
	for i, path := range []string{
		"target.txt", "a b.txt", " lead", "trail ", "new\nline", "\r", "tab\t", `"quoted"`, `back\slash`, "grüße", "\xff\xfe", "a\xc3", "\ufffd",
		"no\u00a0break", "line\u2028sep", "\u202eright to left", "<&>", "\x1b]0;title\a", "\x7f", "😀", "src/", "\x00", "\u0085", "-", " ",
	} {
		f.Add(path, int64(1795465000+i), int64(i*123456789), uint64(i), int64(i-5), uint8(i))
	}
	f.Add("year 0", int64(-62167219200), int64(0), uint64(1<<64-1), int64(1<<63-1), uint8(3))
	f.Add("year 9999", int64(253402300799), int64(999999999), uint64(1), int64(0), uint8(2))
	f.Fuzz(func(t *testing.T, path string, sec, nsec int64, seq uint64, size int64, n uint8) {
		at := time.Unix(sec, nsec).UTC()
		if path == "" || at.Year() < 0 || at.Year() > 9999 {
			t.Skip("no path is empty, and other years have no time in RFC 3339")
		}
		c := change{path: path, time: at.UnixMilli()}
		if n&8 == 0 {
			c.stamp = stamp{kind: file, size: size, sec: at.Unix(), nsec: int32(at.Nanosecond())}
		}
		verb := []string{"watching", "waiting", "created", "changed", "removed"}[n%5]
		checkText(t, verb, c)
		checkJSON(t, verb, c, seq)
	})
}

func checkText(t *testing.T, verb string, c change) {
	t.Helper()
	line := appendedLine(t, format{}, verb, c, 0)
	fields := strings.SplitN(line, " ", 3)
	if len(fields) != 3 {
		t.Fatalf("got %q, want three fields", line)
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", fields[1])
	if want := time.UnixMilli(c.time); fields[0] != verb || err != nil || !at.Equal(want) {
		t.Errorf("got %q, want the type %s and the time %v", line, verb, want)
	}
	path := fields[2]
	if strings.ContainsFunc(path, func(r rune) bool { return !strconv.IsPrint(r) }) || !utf8.ValidString(path) || strings.TrimSpace(path) != path {
		t.Errorf("got the path %q, which is not fit for a terminal or a shell", path)
	}
	if strings.HasPrefix(path, `"`) {
		path, err = strconv.Unquote(path)
	}
	if path != c.path || err != nil {
		t.Errorf("got the path %q and %v, want %q", path, err, c.path)
	}
}

func checkJSON(t *testing.T, verb string, c change, seq uint64) {
	t.Helper()
	line := appendedLine(t, format{json: true, started: time.UnixMilli(c.time)}, verb, c, seq)
	r := decodeRecord(t, line)
	path := []byte(r.Path)
	var err error
	if r.PathBase64 != nil {
		path, err = base64.StdEncoding.DecodeString(*r.PathBase64)
	}
	if string(path) != c.path || err != nil || r.Path != string([]rune(c.path)) || (r.PathBase64 != nil) == utf8.ValidString(c.path) {
		t.Errorf("got %s, %v, want the path %q", line, err, c.path)
	}
	at := time.UnixMilli(c.time).UTC().Format("2006-01-02T15:04:05.000Z")
	want := jsonRecord{Type: verb, Time: at, Seq: seq, Path: r.Path, PathBase64: r.PathBase64, Size: r.Size}
	if verb == "watching" || verb == "waiting" {
		want.Started = at
	}
	if c.stamp.kind == file {
		want.Mtime = time.Unix(c.stamp.sec, int64(c.stamp.nsec)).UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	if r != want {
		t.Errorf("got %s, want %+v", line, want)
	}
	if (r.Size != nil) != (c.stamp.kind == file) || r.Size != nil && *r.Size != c.stamp.size {
		t.Errorf("got %s, want the size %d, or none of what is no file", line, c.stamp.size)
	}
}

// appendedLine returns the line that says verb of c, after checking that it is one.
func appendedLine(t *testing.T, f format, verb string, c change, seq uint64) string {
	t.Helper()
	const before = "the line before\n"
	text, found := strings.CutPrefix(string(f.line([]byte(before), verb, c, seq)), before)
	line, rest, ended := strings.Cut(text, "\n")
	if !found || !ended || rest != "" || strings.ContainsAny(line, "\r\n") {
		t.Fatalf("got %q, want one line after %q", text, before)
	}
	return line
}

// socketDir returns a directory with a path short enough for sockets, which
// that of t.TempDir may not be.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// shell runs a script in a process group of its own, which kill ends. Its input
// stays open, as a terminal's does. What it writes goes to out.
func shell(t *testing.T, script string, args ...string) (cmd *exec.Cmd, out *logText, kill func()) {
	t.Helper()
	needs(t, "sh")
	out = &logText{}
	cmd = exec.Command("sh", append([]string{"-c", script}, args...)...)
	cmd.Env = append(os.Environ(), "NET_WATCHER_TEST_MAIN=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if group := reflect.ValueOf(cmd.SysProcAttr).Elem().FieldByName("Setpgid"); group.IsValid() { // where there are any
		group.SetBool(true)
	}
	cmd.Stdout = out
	cmd.Stderr = out
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		if cmd.ProcessState == nil { // else the number may be another's by now
			killGroup(cmd)
			cmd.Wait()
		}
	})
	t.Cleanup(kill)
	return cmd, out, kill
}

// killGroup kills all that cmd, which shell started, has started.
func killGroup(cmd *exec.Cmd) {
	exec.Command("sh", "-c", fmt.Sprint("kill -KILL -", cmd.Process.Pid)).Run()
}

// spawn runs net-watcher as a process, by a script that has its command line as "$0" "$@".
func spawn(t *testing.T, script string, args ...string) (*exec.Cmd, *logText) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, log, _ := shell(t, script, append([]string{self, "-interval", "1ms"}, args...)...)
	return cmd, log
}

// ends waits for the end of what shell started and returns its state.
func ends(cmd *exec.Cmd) *os.ProcessState {
	defer time.AfterFunc(longEnough, func() { killGroup(cmd) }).Stop()
	cmd.Wait()
	return cmd.ProcessState
}

// needs skips a test for want of a command. Of the many programs called nc it is
// OpenBSD's whose flags are used.
func needs(t *testing.T, commands ...string) {
	t.Helper()
	for _, name := range commands {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
		if name == "nc" {
			if help, _ := exec.Command("nc", "-h").CombinedOutput(); !strings.Contains(string(help), "OpenBSD") {
				t.Skip("nc is not OpenBSD's")
			}
		}
	}
}

// TestRecipes runs each recipe of README as it stands there, but with other addresses and paths, and with
// shorter pauses before it connects again. A recipe is a fenced block, or the part of one below a comment.
func TestRecipes(t *testing.T) {
	_, section, _ := strings.Cut(readText(t, "README.md"), "\n## Recipes\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var recipes []string
	for _, block := range regexp.MustCompile("(?ms)^```\\w+(\n.*?)^```$").FindAllStringSubmatch(section, -1) {
		for part := range strings.SplitSeq(block[1], "\n# ") {
			if _, code, _ := strings.Cut(part, "\n"); code != "" {
				recipes = append(recipes, code)
			}
		}
	}
	tests := []struct {
		name string
		run  func(t *testing.T, recipe string)
	}{
		{"make", testMake}, {"group", testGroup}, {"SSH", testSSH}, {"jq", testJQ}, {"MQTT", testMQTT}, {"NATS", testNATS},
		{"Kubernetes", testKubernetes}, {"Python", testPython}, {"page", testPage},
	}
	if len(recipes) != len(tests) {
		t.Fatalf("README has %d recipes, want one for each of the %d tests", len(recipes), len(tests))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, recipes[i]) })
	}
	t.Parallel() // most of the recipes have not run yet: they do now, beside other tests
}

// adapt puts new strings in the places of old ones, which the recipe must have.
func adapt(t *testing.T, recipe string, oldnew ...string) string {
	t.Helper()
	for pair := range slices.Chunk(oldnew, 2) {
		if !strings.Contains(recipe, pair[0]) {
			t.Fatalf("got the recipe\n%s\nwant %q in it", recipe, pair[0])
		}
		recipe = strings.ReplaceAll(recipe, pair[0], pair[1])
	}
	return recipe
}

// serveRecipe starts the server that README names above the recipe, on another Unix socket and with another target,
// and adapts the recipe to it. The rest of the test runs in parallel.
func serveRecipe(t *testing.T, recipe, target string) (*program, string) {
	t.Helper()
	sock := filepath.Join(socketDir(t), "w.sock")
	p := start(t, append(serverFlags(t, recipe), "-unix", sock, target)...)
	t.Parallel()
	return p, adapt(t, recipe, "/tmp/w.sock", sock)
}

// do runs a script in dir.
func do(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// testMake checks when make runs. A run notes the text of src/200, and its own input, which must be empty, in build/,
// which the server excludes. Then it waits until the file hold is gone there, and notes its end.
func testMake(t *testing.T, recipe string) {
	t.Parallel()
	for name, client := range map[string]string{
		"nc":   "nc $HOST $PORT </dev/null",
		"ncat": "ncat $HOST $PORT </dev/null", // which half-closes, and is greeted twice
	} {
		t.Run(name, func(t *testing.T) {
			needs(t, "bash", "make", "git", "nc", "ncat")
			t.Parallel()
			dir := t.TempDir()
			do(t, dir, `
				printf 'all:\n\tcat src/200 - >>build/runs\n\twhile [ -e build/hold ]; do sleep 0.01; done\n\techo end >>build/runs\n' >Makefile
				mkdir src build
				touch build/runs build/hold
				git init -q
				for text in one two; do
					for n in $(seq 200); do echo $text >src/$n; done
					git add src
					git -c user.name=test -c user.email=test@localhost commit -qm $text
					git tag $text
				done
				git checkout -q one`)
			ran := func(want string) {
				t.Helper()
				var runs string
				until(t, func() bool { runs = readText(t, dir+"/build/runs"); return runs == want }, "%q in the runs, but %q", want, &runs)
			}
			p := start(t, append(serverFlags(t, recipe), "-interval", "5ms", dir)...)
			a := p.subscribe()
			host, port, _ := net.SplitHostPort(p.addr)
			cmd, _, _ := shell(t, `exec bash -c "$0"`, fmt.Sprintf("HOST=%s PORT=%s; cd %s\n", host, port, dir)+
				adapt(t, recipe, "nc localhost 60300 </dev/null", client))

			ran("one\n") // for the greeting
			do(t, dir, "git checkout -q two; rm build/hold")
			ran("one\nend\ntwo\nend\n") // for all that came during the first run

			do(t, dir, "touch build/hold; git checkout -q one")
			ran("one\nend\ntwo\nend\none\n")
			p.stop()
			do(t, dir, "rm build/hold")
			if state := ends(cmd); !state.Success() {
				t.Errorf("got %v at the end of the server, want status 0", state)
			}
			ran("one\nend\ntwo\nend\none\nend\n") // and nothing for a second greeting
			if lines, _ := io.ReadAll(a.lines); strings.Contains(string(lines), dir+"/build") {
				t.Errorf("got\n%s\nwant nothing of what make has written", lines)
			}
		})
	}
}

func testJQ(t *testing.T, recipe string) {
	needs(t, "nc", "jq")
	path := filepath.Join(t.TempDir(), "target.txt")
	replace(t, path, "zero")
	p, recipe := serveRecipe(t, recipe, path)
	_, out, _ := shell(t, recipe)
	p.waitLog("connected from")
	for n, text := range []string{"one", "two"} {
		replace(t, path, text)
		until(t, func() bool { return out.String() == strings.Repeat(path+"\n", n+1) }, "%d lines with %s in\n%v", n+1, path, out)
	}
}

// testSSH runs the command here, for a shell function stands in for ssh.
func testSSH(t *testing.T, recipe string) {
	needs(t, "nc")
	path := filepath.Join(t.TempDir(), "target.txt")
	p, recipe := serveRecipe(t, recipe, path)
	cmd, out, _ := shell(t, `ssh() { shift; sh -c "$*"; }`+"\n"+recipe)
	out.wait(t, "waiting")
	replace(t, path, "one")
	out.wait(t, "created")
	p.stop()
	if state := ends(cmd); !state.Success() {
		t.Errorf("got %v at the end of the server, want status 0", state)
	}
}

func testMQTT(t *testing.T, recipe string) {
	needs(t, "nc", "mosquitto", "mosquitto_pub", "mosquitto_sub")
	path, dir := filepath.Join(t.TempDir(), "target.txt"), socketDir(t)
	_, recipe = serveRecipe(t, recipe, path)
	_, broker, _ := shell(t, `cd "$0" && printf 'listener 0 mqtt.sock\nallow_anonymous true\nuser root\n' >conf && exec mosquitto -v -c conf`, dir)
	broker.wait(t, "running")
	recipe = adapt(t, recipe, "-h localhost", "--unix "+dir+"/mqtt.sock", "sleep 1", "sleep 0.01")
	testBroker(t, recipe, path, broker, "Sending SUBACK")
}

func testNATS(t *testing.T, recipe string) {
	needs(t, "nc", "nats-server", "nats")
	path := filepath.Join(t.TempDir(), "{{Count}}.txt")
	_, recipe = serveRecipe(t, recipe, path)
	_, broker, _ := shell(t, "exec nats-server -V -a 127.0.0.1 -p -1")
	_, addr, _ := strings.Cut(broker.wait(t, "Listening for client connections on"), "connections on ")
	broker.wait(t, "Server is ready")
	testBroker(t, adapt(t, recipe, "nats ", "nats -s nats://"+addr+" "), path, broker, "[SUB files")
}

// testBroker runs the second line of a recipe, which subscribes to a broker, and then the first one. The
// line that says that the file at path is created must arrive.
func testBroker(t *testing.T, recipe, path string, broker *logText, subscribed string) {
	t.Helper()
	publish, subscribe, _ := strings.Cut(recipe, "\n")
	_, out, _ := shell(t, subscribe)
	broker.wait(t, subscribed)
	shell(t, publish)
	out.wait(t, `{"type":"waiting",`)
	replace(t, path, "one")
	line := out.wait(t, `{"type":"created",`)
	if r := decodeRecord(t, line); r.Path != path || r.Seq != 1 || *r.Size != 3 {
		t.Errorf("got %s, want the path %s, seq 1 and size 3", line, path)
	}
}

// testKubernetes swaps a ConfigMap in the way of the kubelet.
func testKubernetes(t *testing.T, recipe string) {
	t.Parallel()
	dir := t.TempDir()
	swap := func(version string) {
		t.Helper()
		do(t, dir, fmt.Sprintf("mkdir %[1]s; echo %[1]s >%[1]s/app.conf; ln -s %[1]s ..data_tmp", version))
		if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil { // mv would move it into the old one
			t.Fatal(err)
		}
	}
	do(t, dir, "ln -s ..data/app.conf app.conf")
	swap("..2026_11_24")
	run := socketDir(t)
	_, log := spawn(t, adapt(t, "exec "+recipe, "net-watcher", `"$0" "$@"`, "/run", run, "/config", dir))
	log.wait(t, "listening on")
	a := dialPeer(t, "unix", run+"/w.sock")
	a.hears("watching", dir+"/app.conf")
	swap("..2026_11_25")
	a.hears("changed", dir+"/app.conf")
}

// runCut runs the program of a recipe, and is its server: it sends one of the texts on each connection, with
// lines like "created x" as JSON, and closes it. It returns the socket, and the output of the program.
func runCut(t *testing.T, command, recipe string, texts ...string) (sock string, out *logText) {
	t.Helper()
	sock = filepath.Join(socketDir(t), "w.sock")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(longEnough, func() { ln.Close() }).Stop()
	defer ln.Close()
	_, out, _ = shell(t, command, adapt(t, recipe, "/tmp/w.sock", sock))
	for _, text := range texts {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, regexp.MustCompile(`(\w+) (.+)`).ReplaceAllString(text, `{"type":"$1","path":"$2"}`))
		conn.Close()
	}
	return sock, out
}

func testPython(t *testing.T, recipe string) {
	needs(t, "python3")
	t.Parallel()
	flags := serverFlags(t, recipe)
	recipe = adapt(t, recipe, "time.sleep(1)", "time.sleep(0.01)")
	t.Run("cut", func(t *testing.T) { testCut(t, recipe) })
	t.Run("killed", func(t *testing.T) { testKilled(t, recipe, flags) })
	t.Run("without -json", func(t *testing.T) { testRefusal(t, recipe, "-list") })
	t.Run("without -list", func(t *testing.T) { testRefusal(t, recipe, "-json") })
}

// testCut cuts the list, and then the line of a removal.
func testCut(t *testing.T, recipe string) {
	t.Parallel()
	const list = "created d/\ncreated d/a\ncreated d/b\nwatching d/\n"
	_, out := runCut(t, `exec python3 -c "$0"`, recipe,
		"created d/\ncreated d/a", list+"created d/c\n{\"type\":\"rem", "created d/\ncreated d/b\nwatching d/\nremoved d/b\n")
	want := "created d/\n" + list + "created d/c\ncreated d/\ncreated d/b\nwatching d/\nremoved d/c\nremoved d/a\nremoved d/b\n"
	until(t, func() bool { return out.String() == want }, "%s in\n%v", want, out)
}

// testKilled kills the server three times while files change. In the end the mirror, which the program
// writes to a file at a signal, equals the disk.
func testKilled(t *testing.T, recipe string, flags []string) {
	t.Parallel()
	dir := t.TempDir()
	targets := []string{dir + "/tree", dir + "/file", dir + "/none"}
	sock := filepath.Join(socketDir(t), "w.sock")
	mirror, out, _ := shell(t, `exec python3 -c "$0"`, `import signal
def show(*_):
    with open("`+dir+`/mirror", "w") as f:
        f.write("".join(sorted(f"{path} {event.get('size', 0)}\0" for path, event in there.items())))
signal.signal(signal.SIGUSR1, show)
`+adapt(t, recipe, "/tmp/w.sock", sock))

	ctx, calm := context.WithCancel(t.Context())
	var storm sync.WaitGroup
	storm.Go(func() {
		names := strings.Split("file|tree|tree/a|tree/new\nline|tree/sub|tree/sub/b|tree/sub/sub|tree/sub/sub/c", "|")
		for size := 0; ctx.Err() == nil; size++ {
			time.Sleep(time.Millisecond)
			path := filepath.Join(dir, names[rand.IntN(len(names))])
			switch rand.IntN(4) { // what is impossible just now fails, and does no harm
			case 0:
				os.RemoveAll(path)
			case 1:
				os.Mkdir(path, 0o777)
			default:
				os.WriteFile(path, make([]byte, size), 0o666)
			}
		}
	})
	for n := range 4 {
		server, _ := spawn(t, `exec "$0" "$@"`, slices.Concat(flags, []string{"-unix", sock}, targets)...)
		until(t, func() bool { return strings.Count(out.String(), "waiting "+dir+"/none\n") == n+1 }, "greeting %d in\n%v", n+1, out)
		listed := len(out.String())
		until(t, func() bool { return len(out.String()) > listed+5000 }, "changes after greeting %d in\n%v", n+1, out)
		if n < 3 {
			server.Process.Kill()
			ends(server)
		}
	}
	calm()
	storm.Wait()
	var got string
	want := listing(targets)
	until(t, func() bool {
		do(t, dir, fmt.Sprint("kill -USR1 ", mirror.Process.Pid))
		text, _ := os.ReadFile(dir + "/mirror")
		got = string(text)
		return got == want
	}, "mirror of %q, but %q", want, &got)
}

// listing returns what is there of the targets, each path with a size, which is 0 for a directory.
func listing(targets []string) string {
	var found []string
	for _, target := range targets {
		filepath.Walk(target, func(path string, fi fs.FileInfo, err error) error {
			switch {
			case err != nil: // the target is not there
			case fi.IsDir():
				found = append(found, path+"/ 0\x00")
			default:
				found = append(found, fmt.Sprintf("%s %d\x00", path, fi.Size()))
			}
			return nil
		})
	}
	slices.Sort(found)
	return strings.Join(found, "")
}

// serverFlags returns the flags of the server that README names above the recipe, without its socket and target.
func serverFlags(t *testing.T, recipe string) []string {
	t.Helper()
	before, _, _ := strings.Cut(readText(t, "README.md"), recipe)
	named := regexp.MustCompile(`server: net-watcher (.*) \S+\n`).FindAllStringSubmatch(before+recipe, -1)
	if len(named) == 0 {
		t.Fatalf("README names no server above\n%s", recipe)
	}
	return strings.Fields(strings.TrimSuffix(named[len(named)-1][1], "-unix /tmp/w.sock"))
}

// testGroup has a member of a group and a stranger connect to a server that another group than its user's owns.
func testGroup(t *testing.T, recipe string) {
	needs(t, "sg", "setpriv", "nc")
	if os.Getuid() != 0 {
		t.Skip("only root can run commands as other users")
	}
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := socketDir(t)
	do(t, dir, "chmod 711 .")
	_, log, _ := shell(t, adapt(t, recipe, "sg files", "exec sg daemon", "net-watcher", "exec "+self, "/tmp/w.sock", dir+"/w.sock"))
	log.wait(t, "listening on")
	connect := func(group string) (*exec.Cmd, *logText) {
		cmd, out, _ := shell(t, fmt.Sprintf("exec setpriv --reuid 4242 --regid %s --clear-groups nc -U %s/w.sock", group, dir))
		return cmd, out
	}
	_, out := connect("daemon")
	out.wait(t, "waiting")
	if cmd, out := connect("4243"); ends(cmd).Success() || !strings.Contains(out.String(), "Permission denied") {
		t.Errorf("a stranger got\n%s", out)
	}
}

// testRefusal lets the mirror in Python meet a server that lacks one of its flags. It names the flag and ends.
func testRefusal(t *testing.T, recipe, given string) {
	t.Parallel()
	sock := filepath.Join(socketDir(t), "w.sock")
	_, log := spawn(t, `exec "$0" "$@"`, given, "-unix", sock, t.TempDir())
	log.wait(t, "listening on")
	cmd, out, _ := shell(t, `exec python3 -c "$0"`, adapt(t, recipe, "/tmp/w.sock", sock))
	_, missing, _ := strings.Cut(t.Name(), "without_")
	if state, want := ends(cmd), "the server runs without "+missing+"\n"; state.ExitCode() != 1 || !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %v and\n%swant exit status 1 and %s", state, out, want)
	}
}

// testPage is a page that listens for events. It hears one for each burst of changes, and none for a greeting.
func testPage(t *testing.T, recipe string) {
	needs(t, "nc", "node")
	t.Parallel()
	dir, sock := t.TempDir(), filepath.Join(socketDir(t), "w.sock")
	serve := func() *exec.Cmd {
		cmd, log := spawn(t, `exec "$0" "$@"`, append(serverFlags(t, recipe), "-unix", sock, dir)...)
		log.wait(t, "listening on")
		return cmd
	}
	server := serve()
	http := filepath.Join(socketDir(t), "http.sock")
	program := adapt(t, recipe, "/tmp/w.sock", sock, `8080, "localhost"`, strconv.Quote(http), "sleep 1", "sleep 0.01")
	lines := regexp.MustCompile(`// run by: (.*) \| node reload.js\n`).FindStringSubmatch(program)
	if lines == nil {
		t.Fatalf("got\n%s\nwant a line with the command that runs it", recipe)
	}
	_, sent, _ := shell(t, `(`+lines[1]+`) | tee /dev/stderr | node -e "$0"`, program)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the lines:\n%s", sent)
		}
	})
	until(t, func() bool {
		conn, err := net.Dial("unix", http)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, "server of pages")
	page := dialPeer(t, "unix", http)
	fmt.Fprint(page, "GET / HTTP/1.0\r\nOrigin: http://localhost:3000\r\n\r\n")
	var head []string
	for line := page.line(); line != "\r"; line = page.line() {
		head = append(head, line)
	}
	for _, want := range []string{"Content-Type: text/event-stream\r", "Access-Control-Allow-Origin: *\r"} {
		if !slices.Contains(head, want) {
			t.Errorf("got %q, want %q in it", head, want)
		}
	}
	greeting := func(n int) {
		t.Helper()
		until(t, func() bool { return strings.Count(sent.String(), "watching ") == n }, "greeting %d", n)
	}
	greeting(1)
	server.Process.Kill()
	ends(server)
	serve()
	greeting(2)
	quiet := func(after string) {
		t.Helper()
		page.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // a wrong event would come after a third of that
		if early, err := page.lines.Peek(1); err == nil {
			t.Errorf("got %q after %s, want no event", early, after)
		}
	}
	quiet("greetings")
	for burst := range 2 {
		for n := range 20 {
			replace(t, fmt.Sprintf("%s/%d", dir, n), strings.Repeat("x", burst+1))
		}
		if line := page.line() + page.line(); line != "data: reload" {
			t.Errorf("got %q, want one event", line)
		}
	}
	quiet("one for each burst")
}
