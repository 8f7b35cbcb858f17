// Net-watcher polls files with stat and sends a line for each change to every subscriber that is connected
// to it, over TCP or a Unix socket.
//
// Usage:
//
//	net-watcher [flags] target...
//
// The server only sends; it reads what a subscriber sends and throws it away. Each line is
//
//	TYPE TIME PATH
//
// A greeting comes first: for each target a line with the type watching if the target is there, and waiting
// if it is not. From then on the types are created, changed and removed. TIME is when the server saw it, in
// UTC. PATH is the target as typed, or joined with a name below it; a directory ends with a separator. A
// path that would not print, or starts with ", or starts or ends with a space, is a quoted Go string.
//
// A subscriber that reads slowly is sent the newest state of each path, once. A subscriber that only shuts
// down its sending side is still served.
//
// An interrupt, termination or hangup signal ends net-watcher with status 0, and a second one kills it. The
// exit status is 1 for a failure and 2 for misuse.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

const usage = `net-watcher [flags] target...

  -tcp address        listen on TCP; port 0 picks one (default localhost:60300)
  -unix path          listen on a Unix socket; replaces TCP unless -tcp is given
  -mode bits          permissions of the Unix socket, octal (default 0600)
  -interval d         pause between polls, at least 1ms (default 250ms)
  -json               send JSON Lines instead of text
  -list               send what is there, as created, before the greeting
  -settle d           report what keeps still for d, or after 10 d (default 0s)
  -content            compare contents too, of regular files up to 1 MiB
  -open               open all that is polled, to have a file server asked at once
  -exclude pattern    in a tree, skip what matches, as in .gitignore; repeatable
  -exclude-from file  the same for each line of a .gitignore; repeatable
  -max n              serve n subscribers at a time, others wait (default 1024)
  -version            print the version
  -h                  print this text

A target is a file, or a directory with all that is below it. It may come and
go. Example, in two terminals:

  net-watcher target.txt
  nc localhost 60300
`

// A config is a command line.
type config struct {
	tcp, unix string      // addresses to listen on, "" for none
	mode      fs.FileMode // of the Unix socket
	json      bool
	max       int
	version   bool
	targets   []string      // as typed, each once
	unread    error         // why a file of -exclude-from could not be read, which is no misuse
	longWrite time.Duration // after which a write counts as blocked
	pollConfig
}

// A usageError is a mistake on the command line.
type usageError struct{ error }

// parse makes a config of the command line. Its errors are mistakes there, and flag.ErrHelp.
func parse(args []string) (config, error) {
	c := config{tcp: "localhost:60300", mode: 0o600, max: 1024, longWrite: longWrite, pollConfig: pollConfig{
		interval: 250 * time.Millisecond, mountEvents: new(atomic.Uint64),
		disk: disk{stat: os.Stat, lstat: os.Lstat, readlink: os.Readlink},
	}}
	c.dir, _ = os.Getwd() // if it is gone, relative targets stay relative
	c.open = func(name string) (*os.File, error) { return os.OpenFile(name, os.O_RDONLY|nonblock, 0) }
	flags := c.flags()
	err := flags.Parse(args)
	if err == nil && !c.version {
		err = c.check(flags)
	}
	return c, err
}

// flags returns the flags, which set c.
func (c *config) flags() *flag.FlagSet {
	flags := flag.NewFlagSet("net-watcher", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("tcp", "", c.setTCP)
	flags.StringVar(&c.unix, "unix", "", "")
	flags.Func("mode", "", c.setMode)
	flags.Func("interval", "", durationTo(&c.interval))
	flags.BoolVar(&c.json, "json", false, "")
	flags.BoolVar(&c.list, "list", false, "")
	flags.Func("settle", "", durationTo(&c.settle))
	flags.BoolVar(&c.content, "content", false, "")
	flags.BoolVar(&c.openAll, "open", false, "")
	flags.Func("exclude", "", c.addPattern)
	flags.Func("exclude-from", "", c.addFile)
	flags.Func("max", "", c.setMax)
	flags.BoolVar(&c.version, "version", false, "")
	return flags
}

// setTCP takes the value of -tcp. It refuses what can be seen to be wrong without binding it.
func (c *config) setTCP(address string) error {
	if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		return fmt.Errorf("a port alone is no address; write :%s or localhost:%[1]s", address)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w; an address is a host and a port, like localhost:60300", err)
	}
	c.tcp = address
	_, err = net.LookupPort("tcp", port)
	return err
}

// setMode parses the value of -mode.
func (c *config) setMode(bits string) error {
	mode, err := strconv.ParseUint(bits, 8, 32)
	if err != nil || len(bits) < 3 || len(bits) > 4 || mode > 0o777 || mode&0o600 != 0o600 {
		return errors.New("a mode has three or four octal digits, at most 0777, and lets the owner read and write")
	}
	c.mode = fs.FileMode(mode)
	return nil
}

// setMax parses the value of -max.
func (c *config) setMax(n string) (err error) {
	if c.max, err = strconv.Atoi(n); err != nil {
		return errors.New("it is no number of subscribers")
	}
	return nil
}

// durationTo returns a function that parses a flag's value into d.
func durationTo(d *time.Duration) func(string) error {
	return func(value string) (err error) {
		if *d, err = time.ParseDuration(value); err != nil {
			return errors.New("a duration is a number with a unit, like 250ms or 2s")
		}
		return nil
	}
}

// check adds the targets to c, and returns the first mistake that it finds.
func (c *config) check(flags *flag.FlagSet) error {
	given, seen := map[string]bool{}, map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, name := range flags.Args() {
		key := trimSeparators(name) // d and d/ are one target
		switch {
		case name == "":
			return errors.New("empty target")
		case name[0] == '-':
			return fmt.Errorf("target %s starts with -: flags come before targets, and a file of that name is ./%[1]s", name)
		case !seen[key]:
			seen[key] = true
			c.targets = append(c.targets, name)
		}
	}
	switch {
	case len(c.targets) == 0:
		return errors.New("no target to watch")
	case given["unix"] && c.unix == "":
		return errors.New("empty -unix path")
	case given["mode"] && !given["unix"]:
		return errors.New("-mode is for the socket of -unix, which is missing")
	case c.interval < time.Millisecond:
		return fmt.Errorf("-interval %v is less than 1ms", c.interval)
	case c.settle < 0:
		return fmt.Errorf("-settle %v is negative", c.settle)
	case c.max < 1:
		return fmt.Errorf("-max %d is less than 1", c.max)
	}
	if given["unix"] && !given["tcp"] {
		c.tcp = ""
	}
	return nil
}

// A patterns is what is excluded below each target, in the order of the command line.
type patterns []pattern

// exclude reports whether the last pattern that matches rel excludes it. rel is a path below a target, with slashes. A
// link to a directory is no directory. The caller leaves out what is below an excluded directory.
func (ps patterns) exclude(rel string, dir bool) bool {
	name := rel[strings.LastIndexByte(rel, '/')+1:]
	for _, x := range slices.Backward(ps) {
		if (dir || !x.dirsOnly) && (x.nameOnly && matches(x.tokens, name) || !x.nameOnly && matches(x.tokens, rel)) {
			return !x.takesBack
		}
	}
	return false
}

// A pattern is a line of .gitignore, with the target in the place of the repository.
type pattern struct {
	tokens    []string
	nameOnly  bool // it is for a name at any depth, not for a path
	dirsOnly  bool
	takesBack bool // what an earlier pattern excludes
}

// A token of a pattern stands for one byte, and is a string of all bytes that this can be; or it is one of these. As in
// git, bytes count and not characters.
const (
	anyBytes = ""   // in a name
	anyNames = "//" // each with its slash
)

// matches reports whether tokens stand for all of rel. At a misfit the last * takes one byte more, or the last ** one
// name more. It does not try that with those before, because the last one could take what they would.
func matches(tokens []string, rel string) bool {
	var afterBytes, afterNames []string // the tokens after the last * and the last **
	var bytesAt, namesAt string         // what is left of rel there
	for len(tokens) > 0 || rel != "" {
		switch {
		case len(tokens) > 0 && tokens[0] == anyBytes:
			tokens = tokens[1:]
			afterBytes, bytesAt = tokens, rel
		case len(tokens) > 0 && tokens[0] == anyNames:
			tokens = tokens[1:]
			afterNames, namesAt = tokens, rel
		case len(tokens) > 0 && rel != "" && strings.IndexByte(tokens[0], rel[0]) >= 0:
			tokens, rel = tokens[1:], rel[1:]
		case bytesAt != "" && bytesAt[0] != '/':
			bytesAt = bytesAt[1:]
			tokens, rel = afterBytes, bytesAt
		case namesAt != "":
			_, namesAt, _ = strings.Cut(namesAt, "/")
			tokens, rel = afterNames, namesAt
		default:
			return false
		}
	}
	return true
}

// addFile adds the lines of the file of an -exclude-from. A file that cannot be read is a failure and no misuse.
func (c *config) addFile(name string) error {
	text, err := os.ReadFile(name)
	c.unread = cmp.Or(c.unread, err)
	for i, line := range strings.Split(strings.TrimPrefix(string(text), "\ufeff"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.Trim(line, " ") == "" || line[0] == '#' {
			continue
		}
		if err := c.addPattern(line); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", name, i+1, line, err)
		}
	}
	return nil
}

// escaped is added to a byte that follows a backslash, so that it has no meaning in a pattern.
const escaped = 0x100

// addPattern adds the value of an -exclude. It refuses what can never match, and the little that it does not know.
func (c *config) addPattern(line string) error {
	if strings.HasPrefix(line, "#") {
		return errors.New(`it is a comment; \# is for a name that starts with #`)
	}
	var text []rune // one for each byte
	for _, b := range []byte(line) {
		if last := len(text) - 1; last >= 0 && text[last] == '\\' {
			text[last] = escaped + rune(b)
		} else {
			text = append(text, rune(b))
		}
	}
	var x pattern
	rest := strings.TrimRight(string(text), " ")
	rest, x.takesBack = strings.CutPrefix(rest, "!")
	rest, x.dirsOnly = strings.CutSuffix(rest, "/")
	x.nameOnly = !strings.Contains(rest, "/")
	for element := range strings.SplitSeq(strings.TrimPrefix(rest, "/"), "/") {
		if err := x.add(element); err != nil {
			return err
		}
	}
	if last := len(x.tokens) - 1; x.tokens[last] == anyNames { // all that is below a directory, but not the directory
		x.tokens = append(x.tokens, anyBytes)
	} else { // the slash behind the last element
		x.tokens = x.tokens[:last]
	}
	c.patterns = append(c.patterns, x)
	return nil
}

// add adds the tokens of an element, which is the text between two slashes, and of the slash behind it.
func (x *pattern) add(element string) (err error) {
	switch {
	case element == "":
		return errors.New("it matches nothing, because no name is empty")
	case element == "." || element == "..":
		return fmt.Errorf("no path below a target has %s in it; /name is what is right below the target", element)
	case strings.ContainsAny(element, string([]rune{0, escaped})):
		return errors.New("no name has a zero byte in it; a file of patterns is in UTF-8")
	case strings.ContainsAny(element, string([]rune{'\\', escaped + '/'})):
		return errors.New(`a name in it ends with a backslash; \\ is for the character`)
	case len(element) > 1 && strings.Trim(element, "*") == "": // to git, *** is ** too
		x.tokens = append(x.tokens, anyNames)
		return nil
	}
	for text := []rune(element); len(text) > 0; {
		t, rest := string([]byte{byte(text[0])}), text[1:]
		switch text[0] {
		case '*':
			t = anyBytes
		case '?':
			t, _, err = cutClass([]rune("^/]"))
		case '[':
			t, rest, err = cutClass(rest)
		}
		if err != nil {
			return err
		}
		text = rest
		x.tokens = append(x.tokens, t)
	}
	x.tokens = append(x.tokens, "/")
	return nil
}

// cutClass returns the token of the class that text starts with, behind its [, and what follows it. As in git, a ] that
// comes first is in the class, and so is a - that comes first or last, and a slash never is.
func cutClass(text []rune) (t string, rest []rune, err error) {
	var named [256]bool
	not := len(text) > 0 && (text[0] == '!' || text[0] == '^')
	if not {
		text = text[1:]
	}
	for first := true; len(text) > 0; first = false {
		n := 1
		if len(text) > 2 && text[1] == '-' && text[2] != ']' {
			n = 3
		}
		from, to := byte(text[0]), byte(text[n-1])
		switch {
		case text[0] == ']' && !first:
			for b := range named {
				if named[b] != not && b != '/' {
					t += string([]byte{byte(b)})
				}
			}
			return t, text[1:], nil
		case text[0] == '[' && len(text) > 1 && text[1] == ':':
			return "", nil, errors.New("[: is not known; a digit is [0-9], and a letter [A-Za-z]")
		case from > to:
			return "", nil, errors.New("a range in it goes backwards")
		}
		for b := int(from); b <= int(to); b++ {
			named[b] = true
		}
		text = text[n:]
	}
	return "", nil, errors.New(`a [ has no ]; \[ is for the character`)
}

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop) // so that a second signal kills
	os.Exit(exitStatus(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// exitStatus prints err, if it is not nil, and returns the status to exit with.
func exitStatus(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "net-watcher: %s\n", quote(err.Error()))
	if errors.As(err, &usageError{}) {
		fmt.Fprintln(stderr, "net-watcher: for usage, run net-watcher -h")
		return 2
	}
	return 1
}

// run is the program, from its arguments to its end, which comes when ctx is done.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = io.WriteString(stdout, usage)
		return err
	case err != nil:
		return usageError{err}
	case c.version:
		_, err = fmt.Fprintln(stdout, version())
		return err
	case c.unread != nil:
		return c.unread
	}
	listeners, err := listen(ctx, c)
	if err != nil && ctx.Err() == nil { // a signal at this moment is no failure
		return err
	}
	c.countMountEvents(ctx)
	logger, flush := newLog(stderr)
	watch(ctx, c, listeners, logger)
	flush()
	return nil
}

// version returns the name and version of the program, and what it was built with.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("net-watcher %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// listen binds every address that c names. If one cannot be bound, the program ends, and that closes the other.
func listen(ctx context.Context, c config) (listeners []net.Listener, err error) {
	if c.tcp != "" {
		if listeners, err = listenTCP(ctx, c.tcp); err != nil {
			return nil, fmt.Errorf("%w; -tcp chooses another address", err)
		}
	}
	if c.unix != "" {
		ln, err := listenUnix(ctx, c.unix, c.mode)
		if err != nil {
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// listenTCP listens on address or, if its host is a name, on every address of that name: some clients try only ::1 for
// localhost, and others only 127.0.0.1.
func listenTCP(ctx context.Context, address string) ([]net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	hosts := []string{host}
	if host != "" {
		var addrs []net.IPAddr
		addrs, err = net.DefaultResolver.LookupIPAddr(ctx, host) // which returns when ctx is done; LookupHost does not
		hosts = nil
		for _, addr := range addrs {
			hosts = append(hosts, addr.String())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen tcp: %w", err)
	}
	// A peer that vanished is gone after 75 s: 15 s, and 15 s for each of 4 probes, which are the defaults. If lines were
	// on their way to it, that is left to the system, which on Linux tries for a quarter of an hour.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Count: 4}}
	return bindAll(hosts, port, func(address string) (net.Listener, error) {
		network := "tcp"
		if strings.HasPrefix(address, "0.0.0.0:") {
			network = "tcp4" // or it would be IPv6 as well
		}
		return lc.Listen(ctx, network, address)
	})
}

const portTries = 10 // to find one that is free on every address, which it nearly always is

// bindAll binds port at all hosts. If port is 0, it picks one.
func bindAll(hosts []string, port string, bind func(string) (net.Listener, error)) (bound []net.Listener, err error) {
	slices.Sort(hosts) // 127.0.0.1 comes before ::1, for scripts that read one line of the log
	hosts = slices.Compact(hosts)
	for range portTries {
		if bound, err = bindEach(hosts, port, bind); err == nil || port != "0" {
			break
		}
	}
	return bound, err
}

// bindEach binds the hosts, the later ones with the port that the first one got. It leaves out those that the system
// does not have, as ::1 where IPv6 is off, if it has another one.
func bindEach(hosts []string, port string, bind func(string) (net.Listener, error)) (bound []net.Listener, err error) {
	lacking := []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, 10049, 10047} // the numbers are Windows'
	for _, host := range hosts {
		ln, bindErr := bind(net.JoinHostPort(host, port))
		errno, _ := errors.AsType[syscall.Errno](bindErr) // or 0
		switch {
		case bindErr == nil:
			bound = append(bound, ln)
			_, port, _ = net.SplitHostPort(ln.Addr().String())
		case slices.Contains(lacking, errno):
			err = bindErr
		default:
			for _, ln := range bound {
				ln.Close()
			}
			return nil, bindErr
		}
	}
	if len(bound) > 0 {
		return bound, nil
	}
	return nil, err
}

const (
	gcPercent  = 65      // at 100 the memory is a quarter more, at 50 the time of a poll a tenth
	maxThreads = 1 << 20 // more than there will be: each stat that hangs holds one, and Go ends at 10,000
)

// watch polls the targets of c and serves subscribers on the listeners, which it owns, until ctx is done. After
// that nothing is logged.
func watch(ctx context.Context, c config, listeners []net.Listener, logger *log.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	debug.SetMaxThreads(maxThreads)
	j := newJournal(c, logger)
	polling := newPolling(c.targets, c.pollConfig, logger, j.append)
	polling.start(ctx)
	slots := &slots{taken: make(chan struct{}, c.max)}
	var serving sync.WaitGroup
	polling.supervise(ctx, func() {
		j.open()
		for _, ln := range listeners {
			if addr, isTCP := ln.Addr().(*net.TCPAddr); isTCP && !addr.IP.IsLoopback() {
				logger.Printf("whoever can reach %v can subscribe, for it is not a loopback address", addr)
			}
			logger.Printf("listening on %s", quote(ln.Addr().String()))
			serving.Go(func() { serve(ctx, ln, j, slots) })
		}
	})
	last := log.New(logger.Writer(), logger.Prefix(), logger.Flags())
	logger.SetOutput(io.Discard) // a poll or a subscriber may have more to say
	last.Printf("%s: closing", strings.TrimSuffix(context.Cause(ctx).Error(), " signal received"))
	j.close()
	for _, ln := range listeners {
		ln.Close()
	}
	serving.Wait()
	j.delivering.Wait() // for those who were in a write to the last who left
}

// sendBuffer is small because its lines grow stale while a reader stops. With less, loopback waits for delayed ACKs.
const sendBuffer = 64 << 10

// serve accepts subscribers until ln is closed, and returns when they are gone. It accepts before it waits for a slot,
// because a listener without clients must hold none.
func serve(ctx context.Context, ln net.Listener, j *journal, slots *slots) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for failing := false; ; {
		conn := accept(ctx, ln, &failing, j.logger)
		if conn == nil {
			return
		}
		if !slots.take(ctx, j.logger) {
			conn.Close()
			return
		}
		from := conn.RemoteAddr()
		switch conn := conn.(type) {
		case *net.TCPConn:
			conn.SetWriteBuffer(sendBuffer)
		case *net.UnixConn:
			conn.SetWriteBuffer(sendBuffer)
			from = ln.Addr() // a client's end seldom has a name
		}
		s := j.join(conn, from)
		serving.Go(func() {
			s.serve(j)
			<-slots.taken
		})
	}
}

// slots are for the subscribers that may be there at a time. The listeners share them.
type slots struct {
	taken chan struct{}
	full  atomic.Bool // the latest subscriber had to wait, as the log says
}

// take waits for a slot and takes it. It returns false if ctx is done before.
func (s *slots) take(ctx context.Context, logger *log.Logger) bool {
	select {
	case s.taken <- struct{}{}:
		s.full.Store(false)
		return true
	default:
	}
	if !s.full.Swap(true) {
		logger.Printf("%d subscribers; further ones wait", cap(s.taken))
	}
	select {
	case s.taken <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// After an Accept that failed, perhaps for want of descriptors, the pauses double from one to the other.
const minBackOff, maxBackOff = 5 * time.Millisecond, time.Second

// accept returns the next connection, or nil when ln is closed. It logs the first failure of a spell, which failing
// remembers. A spell ends with an Accept that succeeds at once: at the limit of descriptors, each subscriber that leaves
// lets one succeed after failures.
func accept(ctx context.Context, ln net.Listener, failing *bool, logger *log.Logger) net.Conn {
	for backOff := minBackOff; ; backOff = min(2*backOff, maxBackOff) {
		conn, err := ln.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			*failing = *failing && backOff > minBackOff
			return conn
		}
		if !*failing {
			logger.Printf("%v; trying again", err)
		}
		*failing = true
		wait(ctx, backOff)
	}
}

// A subscriber is a connection and its place in the journal. A goroutine of its own reads, to learn of its end;
// deliverers write.
type subscriber struct {
	id   int
	conn net.Conn
	gone chan struct{} // closed when it has left

	// The journal's lock guards these.
	cursor
	greeting []byte      // to be sent first
	again    bool        // a further greeting is due, if there is nothing else to send
	left     bool        // it is not in the journal any more
	due      bool        // it stands in the queue, or a deliverer has it
	after    *subscriber // stands behind it in the queue
}

// serve waits until s has left, and closes the connection. EOF may mean that the peer is gone or, with nc and socat,
// only that its input ended. The two look the same until the server writes. So s gets a second greeting, which is true
// and harmless, and then an empty write now and then, which fails once the peer is gone. Formatting here would grow the
// stack of each subscriber.
func (s *subscriber) serve(j *journal) {
	var err error
	for buf := make([]byte, 64); err == nil; { // what it sends is thrown away
		_, err = s.conn.Read(buf)
	}
	if err == io.EOF {
		j.greetAgain(s)
		s.probe()
	}
	j.leave(s)
	s.conn.Close()
}

// The pauses before a peer that has shut down its sending side is probed for the first time, and again.
const firstProbe, nextProbe = 50 * time.Millisecond, time.Second

// probe returns when the peer turns out to be gone, or s has left.
func (s *subscriber) probe() {
	var err error
	for pause := firstProbe; err == nil; pause = nextProbe {
		select {
		case <-s.gone:
			return
		case <-time.After(pause):
			_, err = s.conn.Write(nil)
		}
	}
}

// A journal holds the changes that subscribers have yet to read. Pollers append to it, and each subscriber is sent them
// at its own pace. A later change of a path replaces the earlier record, so that a slow subscriber gets the newest state
// of each path, once. For -list the journal also keeps the record of each path that is there.
type journal struct {
	names  []string // of the targets, as typed
	format format
	list   bool
	logger *log.Logger

	// Tests have others than maxRecords and longWrite.
	limit     int // of unread records
	longWrite time.Duration

	// Calls under mu do not block: logging, which counts subscribers in order, and setting deadlines.
	mu         sync.Mutex
	targets    []change  // what each target is now, for greetings
	deadline   time.Time // of the last writes, once the journal is closed
	seq        uint64    // of the newest change
	records    []*record // in the order of seq, dead ones among them
	byPath     map[pathKey]*record
	compactAt  int             // how many records are worth compacting
	subs       []*subscriber   // in the order of joining
	joined     int             // subscribers ever
	behind     int             // subscribers that have something to read
	spans      map[cursor]span // what is to be read next at a cursor, encoded once for all
	greeting   []byte          // the newest one, while it is true
	greetingAt time.Time

	first, last *subscriber // of the queue of those who are due; last means nothing while first is nil
	deliverers  int
	writing     int            // deliverers that are in a write
	delivering  sync.WaitGroup // has the deliverers in it
	relief      *time.Timer    // calls relieveLong
	eager       bool           // a write has been blocked since the queue was last empty
}

const maxRecords = 1 << 20 // bounds the memory that a subscriber can cost by not reading

func newJournal(c config, logger *log.Logger) *journal {
	j := &journal{
		names: c.targets, format: format{json: c.json, started: time.Now()}, list: c.list, logger: logger,
		limit: maxRecords, longWrite: c.longWrite, targets: make([]change, len(c.targets)),
		byPath: map[pathKey]*record{}, spans: map[cursor]span{},
	}
	j.relief = time.AfterFunc(time.Hour, j.relieveLong)
	return j
}

// open begins to number changes, when subscribers may come. What is in the list has a number.
func (j *journal) open() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.list {
		j.seq = 0
	}
}

// append takes in the changes of one poll, which makes every subscriber due.
func (j *journal) append(changes []change) {
	if len(changes) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.seq
	for _, c := range changes {
		j.put(c)
	}
	clear(j.spans)
	j.greeting = nil
	j.evict(before)
	j.behind = len(j.subs)
	for _, s := range j.subs {
		j.rouse(s)
	}
}

// join adds a subscriber. Its greeting and its cursor are of the same moment, so that a change is in the greeting or
// comes after it. A subscriber of the list begins where the journal does, and is greeted when it has read all.
func (j *journal) join(conn net.Conn, from net.Addr) *subscriber {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.joined++
	s := &subscriber{id: j.joined, conn: conn, gone: make(chan struct{})}
	if j.list && j.seq > 0 {
		s.cursor = cursor{base: j.seq, listing: true}
		j.behind++
	} else {
		s.cursor, s.greeting = cursor{at: j.seq, base: j.seq}, j.greet()
	}
	j.subs = append(j.subs, s)
	conn.SetWriteDeadline(j.deadline) // none before the journal is closed
	j.rouse(s)
	j.logger.Printf("subscriber %d connected from %s (%d connected)", s.id, quote(from.String()), len(j.subs))
	return s
}

// leave removes s.
func (j *journal) leave(s *subscriber) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.remove(s)
}

// remove removes s, if that has not happened yet, and ends its serve, and a write to it. It does not close the
// connection, because that waits for both.
func (j *journal) remove(s *subscriber) {
	if s.left {
		return
	}
	s.left = true
	close(s.gone)
	i := slices.Index(j.subs, s)
	j.subs = slices.Delete(j.subs, i, i+1)
	if s.at < j.seq {
		j.caughtUp()
	}
	s.conn.SetDeadline(time.Now())
	j.logger.Printf("subscriber %d disconnected (%d connected)", s.id, len(j.subs))
}

// greetAgain has s greeted once more, unless there is something else to send.
func (j *journal) greetAgain(s *subscriber) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.again = s.at == j.seq
	j.rouse(s)
}

const drainTime = 500 * time.Millisecond // to take what is left after the signal; the end is due in a second

// close ends the journal: subscribers leave when they have been sent what is in it, or after drainTime.
func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.deadline = time.Now().Add(drainTime)
	for _, s := range j.subs {
		s.conn.SetWriteDeadline(j.deadline)
		j.rouse(s)
	}
}

// rouse puts s at the end of the queue, unless it stands there or a deliverer has it, who will look what is owed to it.
func (j *journal) rouse(s *subscriber) {
	if s.due {
		return
	}
	s.due = true
	if j.first == nil {
		j.first = s
	} else {
		j.last.after = s
	}
	j.last = s
	j.relieve()
}

// A write that lasts so long counts as blocked; others take some microseconds. Without the wait, two deliverers would
// always share the work, and get into each other's way: the same lines would cost a fifth more CPU.
const longWrite = time.Millisecond

// relieveLong is called when the time of longWrite has passed since the latest write began. If all deliverers are in a
// write then, many readers may be suspended. So until the queue is empty, each deliverer starts the next one before it
// writes.
func (j *journal) relieveLong() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.eager = j.relieve()
}

// relieve starts a deliverer if a subscriber is due and every deliverer is in a write. It reports whether it has done so.
// So a reader who is suspended holds up one deliverer, and no other subscriber.
func (j *journal) relieve() (started bool) {
	if j.first == nil || j.writing < j.deliverers {
		return false
	}
	j.deliverers++
	j.delivering.Go(j.deliver)
	return true
}

// deliver writes to those who are due until nobody is, a piece to each in turn.
func (j *journal) deliver() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.first != nil {
		s := j.take()
		if lines := j.next(s); len(lines) > 0 {
			j.write(s, lines)
		}
		s.due = false
		switch {
		case s.left:
		case s.greeting != nil || s.at < j.seq || s.again:
			j.rouse(s)
		case !j.deadline.IsZero():
			j.remove(s)
		}
	}
	j.eager = false
	j.deliverers--
}

// take takes the first out of the queue.
func (j *journal) take() *subscriber {
	s := j.first
	j.first, s.after = s.after, nil
	return s
}

// write lets go of the lock to write lines to s. No write has a deadline before the journal is closed. A write that
// fails may have cut a line, so it ends s.
func (j *journal) write(s *subscriber, lines []byte) {
	j.writing++
	if j.eager {
		j.relieve()
	} else {
		j.relief.Reset(j.longWrite)
	}
	j.mu.Unlock()
	_, err := s.conn.Write(lines)
	j.mu.Lock()
	j.writing--
	if err != nil {
		j.remove(s)
	}
}

// next returns what to send to s next. That can be nothing though more is owed, when the rest of a list is removals.
func (j *journal) next(s *subscriber) (lines []byte) {
	switch {
	case s.left:
	case s.greeting != nil:
		lines, s.greeting = s.greeting, nil
	case s.at < j.seq:
		sp := j.span(s.cursor)
		if s.listing && !sp.to.listing {
			s.greeting = j.greet() // after the rest of the list
		}
		lines, s.cursor, s.again = sp.lines, sp.to, false
		if s.at == j.seq {
			j.caughtUp()
		}
	case s.again:
		lines, s.again = j.greet(), false
	}
	return lines
}

// A change is what a poller reports of a path.
type change struct {
	path    string // as the protocol shows it, but not quoted
	target  int32  // index of the target that it is, or is below
	root    bool   // it is the target
	created bool   // it was not there before
	stamp   stamp  // of what is there now, if anything is
	time    int64  // when that was seen, in Unix milliseconds
}

// A record is the newest change of a path, as the journal files it.
type record struct {
	change
	seq  uint64
	born uint64 // seq of the change that created the path, 0 if that was before all records
	dead bool   // a later record has replaced it
}

// A pathKey names a path. Targets inside each other both report it.
type pathKey struct {
	target int32
	path   string
}

// put makes c the record of its path.
func (j *journal) put(c change) {
	j.seq++
	if c.root {
		j.targets[c.target] = c
	}
	if len(j.subs) == 0 && !j.list {
		return
	}
	key, r := pathKey{c.target, c.path}, &record{change: c, seq: j.seq}
	if old := j.byPath[key]; old != nil {
		old.dead = true
		r.born = old.born
	}
	if c.created {
		r.born = r.seq
	}
	j.byPath[key] = r
	j.records = append(j.records, r)
}

// evict removes the slowest subscribers while more than limit records are unread. It spares each subscriber that has
// read everything up to seq before.
func (j *journal) evict(before uint64) {
	if len(j.records) <= j.compactAt {
		return
	}
	for unread, slowest := j.compact(); unread > j.limit && slowest < before; unread, slowest = j.compact() {
		for _, s := range slices.Clone(j.subs) {
			if s.passed() == slowest {
				j.logger.Printf("subscriber %d has left more than %d changes unread; disconnecting it", s.id, j.limit)
				j.remove(s)
			}
		}
	}
}

// compact drops the records that are dead, and those that everybody has read and no list needs. It returns how many
// it keeps only for those who have not read them, and how far the slowest subscriber has read.
func (j *journal) compact() (unread int, slowest uint64) {
	slowest = j.seq
	for _, s := range j.subs {
		slowest = min(slowest, s.passed())
	}
	j.records = slices.DeleteFunc(j.records, func(r *record) bool {
		switch {
		case r.dead:
			return true
		case j.list && r.stamp.there():
			return false
		case r.seq > slowest:
			unread++
			return false
		}
		delete(j.byPath, pathKey{r.target, r.path})
		return true
	})
	if len(j.records) == 0 {
		j.records, j.byPath = nil, map[pathKey]*record{} // which still had room for what was in them
	}
	j.compactAt = max(len(j.records)+len(j.records)/4, min(j.limit, 1000))
	return unread, slowest
}

// caughtUp notes that one more subscriber has read everything. When all have, nobody needs the records any more.
func (j *journal) caughtUp() {
	if j.behind--; j.behind == 0 {
		clear(j.spans)
		j.compact()
	}
}

// A cursor is how far a subscriber has been sent the journal, and what it knew when it last had all: a path that was
// born after base is new to it. A subscriber that is sent the list begins at 0, so all that it is sent is new to it.
type cursor struct {
	at, base uint64
	listing  bool // the list is being sent
}

// passed returns the seq up to which a subscriber needs no removals: it has read them, or they came before it did.
func (c cursor) passed() uint64 { return max(c.at, c.base) }

// A span is a piece of the journal as lines, and the cursor behind it.
type span struct {
	lines []byte
	to    cursor
}

// A span is cut after the line that brings it to maxSpan bytes. The journal keeps maxSpans of them: with one, a
// thousand subscribers that catch up at different paces would have each piece encoded again and again.
const maxSpan, maxSpans = 64 << 10, 16

// span returns what is to be read at c.
func (j *journal) span(c cursor) span {
	sp, found := j.spans[c]
	if found {
		return sp
	}
	sp.to = c
	i, _ := slices.BinarySearchFunc(j.records, c.at+1, func(r *record, seq uint64) int { return cmp.Compare(r.seq, seq) })
	for ; i < len(j.records) && len(sp.lines) < maxSpan; i++ {
		r := j.records[i]
		if r.dead || !r.stamp.there() && r.seq <= c.base {
			continue
		}
		verb := "changed"
		switch {
		case !r.stamp.there():
			verb = "removed"
		case c.listing || r.born > c.base:
			verb = "created"
		}
		sp.lines = j.format.line(sp.lines, verb, r.change, r.seq)
		sp.to.at = r.seq
	}
	if i == len(j.records) {
		sp.to = cursor{at: j.seq, base: j.seq}
	}
	if len(j.spans) == maxSpans {
		clear(j.spans)
	}
	j.spans[c] = sp
	return sp
}

// greetingTime is how long a greeting is handed out again while nothing changes. With 2,000 targets one for
// each subscriber would be 110 MB for 500 of them.
const greetingTime = time.Second

// greet returns a line for each target, as subscribers are to know it now, in bytes that nobody may change.
func (j *journal) greet() []byte {
	now := time.Now()
	if j.greeting != nil && now.Sub(j.greetingAt) < greetingTime {
		return j.greeting
	}
	j.greeting, j.greetingAt = nil, now
	for i, t := range j.targets {
		verb := "watching"
		if !t.stamp.there() {
			verb, t.path = "waiting", j.names[i] // without the separator that it had as a directory
		}
		t.time = now.UnixMilli()
		j.greeting = j.format.line(j.greeting, verb, t, j.seq)
	}
	return j.greeting
}

// A format is how lines look. started is the server's start, for greetings in JSON.
type format struct {
	json    bool
	started time.Time
}

const timeFormat = "2006-01-02T15:04:05.000Z" // RFC 3339 in UTC, with milliseconds

// line appends to lines the one that says verb of c. In JSON, path_base64 has the bytes of a path that is not UTF-8,
// which path only resembles.
func (f format) line(lines []byte, verb string, c change, seq uint64) []byte {
	at := time.UnixMilli(c.time).UTC()
	if !f.json {
		lines = at.AppendFormat(append(lines, verb+" "...), timeFormat)
		return append(lines, " "+quote(c.path)+"\n"...)
	}
	o := struct {
		Type       string `json:"type"`
		Time       string `json:"time"`
		Seq        uint64 `json:"seq"`
		Started    string `json:"started,omitempty"`
		Path       string `json:"path"`
		PathBase64 []byte `json:"path_base64,omitempty"`
		Size       *int64 `json:"size,omitempty"`
		Mtime      string `json:"mtime,omitempty"`
	}{Type: verb, Time: at.Format(timeFormat), Seq: seq, Path: c.path}
	if verb == "watching" || verb == "waiting" {
		o.Started = f.started.UTC().Format(timeFormat)
	}
	if !utf8.ValidString(c.path) {
		o.PathBase64 = []byte(c.path)
	}
	if c.stamp.kind == file {
		size := c.stamp.size // or every c would be on the heap
		o.Size = &size
		o.Mtime = time.Unix(c.stamp.sec, int64(c.stamp.nsec)).UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	b := bytes.NewBuffer(lines)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	enc.Encode(o) // none of its fields can fail
	return b.Bytes()
}

// quote returns s, as a quoted Go string where s would not be one line that can be read back.
func quote(s string) string {
	if !utf8.ValidString(s) || strings.HasPrefix(s, `"`) || strings.Trim(s, " ") != s ||
		strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

const (
	maxUnwritten = 1 << 14                // so many lines wait while stderr takes nothing; further ones are lost
	flushTime    = 100 * time.Millisecond // for which the end of the program waits for them
)

// newLog returns the log of the server. A goroutine of its own writes the lines to stderr, because a write to
// a terminal that is stopped, or to a full pipe, does not return. flush waits for it; nothing may be logged later.
func newLog(stderr io.Writer) (logger *log.Logger, flush func()) {
	lines := make(logLines, maxUnwritten)
	writing, written := context.WithCancel(context.Background())
	go func() {
		defer written()
		for line := range lines {
			stderr.Write(line) // a line that cannot be written is lost, and nothing else
		}
	}()
	return log.New(lines, "net-watcher: ", 0), func() {
		close(lines)
		wait(writing, flushTime)
	}
}

// logLines are on their way to stderr.
type logLines chan []byte

// Write takes one line.
func (l logLines) Write(line []byte) (int, error) {
	select {
	case l <- bytes.Clone(line):
	default:
	}
	return len(line), nil
}

// absolute returns the path of a target, which stays right when the working directory is replaced or mounted again.
// It does not clean the path, because a link may stand before "..", but drops "." for NFS, which asks no server for it.
func absolute(dir, name string) string {
	if dir != "" && filepath.VolumeName(name) == "" && !os.IsPathSeparator(name[0]) {
		name = withSeparator(dir) + name
	}
	dot := func(element string) bool { return element == "./" || element == "." }
	return cmp.Or(strings.Join(slices.DeleteFunc(strings.SplitAfter(name, "/"), dot), ""), name)
}

// parentOf returns the directory of path, with the separator. It cleans nothing: ".." does not lead back behind a link.
func parentOf(path string) string {
	dir, _ := filepath.Split(trimSeparators(path))
	return cmp.Or(dir, "."+string(filepath.Separator))
}

func trimSeparators(path string) string {
	return strings.TrimRightFunc(path, func(r rune) bool { return r == '/' || r == os.PathSeparator })
}

// withSeparator returns the path with a separator at its end.
func withSeparator(path string) string {
	if os.IsPathSeparator(path[len(path)-1]) {
		return path
	}
	return path + string(filepath.Separator)
}

// wait waits for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
