// Net-watcher polls files with stat and sends a line per change to everyone who
// connects, over TCP or a Unix socket.
//
// Usage:
//
//	net-watcher [flags] target...
//
//	  -tcp address      listen on TCP; port 0 picks one (default localhost:60300)
//	  -unix path        listen on a Unix socket; replaces TCP unless -tcp is given
//	  -interval d       pause between polls, at least 1ms (default 250ms)
//	  -json             send JSON Lines instead of text
//	  -settle d         report what keeps still for d, or after 10 d (default 0)
//	  -content          compare contents too, of regular files up to 1 MiB
//	  -exclude pattern  in a tree, skip names that match, like '*.o'; repeatable
//	  -max n            serve n subscribers at a time, others wait (default 1024)
//	  -version          print the version
//	  -h                print this text
//
//	A target is a file, or a directory with all that is below it. It may come and
//	go. Example, in two terminals:
//
//	  net-watcher target.txt
//	  nc localhost 60300
//
// The server only sends. Each line is
//
//	TYPE TIME PATH
//
// TYPE is watching or waiting in the greeting, which says of each target whether
// it is there, and from then on created, changed or removed. TIME is when the
// server saw it, in UTC. PATH is the target as typed, or joined with the name
// below it; directories end with a separator. A path that would not print, or
// starts with ", or starts or ends with a space, is a quoted Go string.
//
// A subscriber that reads slowly gets the newest state of each path, once. One
// that only shuts down its sending side goes on receiving.
//
// An interrupt, termination or hangup signal ends net-watcher with status 0, and
// a second one kills it. The exit status is 1 for a failure and 2 for misuse.
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
	"log"
	"maps"
	"net"
	"os"
	"os/signal"
	"path"
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

  -tcp address      listen on TCP; port 0 picks one (default localhost:60300)
  -unix path        listen on a Unix socket; replaces TCP unless -tcp is given
  -interval d       pause between polls, at least 1ms (default 250ms)
  -json             send JSON Lines instead of text
  -settle d         report what keeps still for d, or after 10 d (default 0)
  -content          compare contents too, of regular files up to 1 MiB
  -exclude pattern  in a tree, skip names that match, like '*.o'; repeatable
  -max n            serve n subscribers at a time, others wait (default 1024)
  -version          print the version
  -h                print this text

A target is a file, or a directory with all that is below it. It may come and
go. Example, in two terminals:

  net-watcher target.txt
  nc localhost 60300
`

// A config is what the command line says.
type config struct {
	tcp, unix string // addresses to listen on, "" for none
	interval  time.Duration
	settle    time.Duration
	json      bool
	content   bool
	exclude   []string
	max       int
	version   bool
	targets   []string // each once

	// How pollers reach the file system. Tests put in what fails, or is slow.
	stat, lstat func(string) (os.FileInfo, error)
	open        func(string) (*os.File, error)
}

// A usageError is a mistake on the command line.
type usageError struct{ error }

const (
	// A TCP peer that has vanished is noticed after keepAliveCount+1 intervals.
	keepAliveInterval = 15 * time.Second
	keepAliveCount    = 4

	// sendBuffer is small because what it holds grows stale while a reader stops.
	sendBuffer = 16 << 10

	// The pauses before the probes of a peer that has shut down its sending side.
	firstProbe = 50 * time.Millisecond
	nextProbe  = time.Second

	// The pauses after failing to accept, for want of descriptors perhaps.
	minBackOff = 5 * time.Millisecond
	maxBackOff = time.Second

	// stallTime is how long the baseline may make no progress before the server
	// starts without it.
	stallTime = 2 * time.Second

	// On a signal all must be over within a second. These bound the waiting for
	// subscribers to take what is left, and for the log to be written.
	drainTime = 500 * time.Millisecond
	flushTime = 100 * time.Millisecond

	// maxUnwritten is how much of the log is kept while stderr takes nothing.
	maxUnwritten = 4 << 20

	// maxRecords bounds the memory that those who do not read can cost.
	maxRecords = 1 << 20

	// A span ends with the line that takes it to maxSpan bytes or more. Up to maxSpans
	// of them are kept for others at the same cursor.
	maxSpan  = 64 << 10
	maxSpans = 16

	// A subscriber is mostly stack, and the collector allows garbage in proportion to
	// heap and stacks. So at 100 percent, ten thousand subscribers would come with as
	// much garbage again. A poller of many entries raises it to manyGC.
	gcPercent = 15

	// Every stat that hangs holds a thread, and Go ends a program that has 10,000.
	maxThreads = 1 << 20
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		sig := <-signals
		signal.Stop(signals) // so that a second signal kills
		cancel(errors.New(sig.String()))
	}()
	os.Exit(exitStatus(run(ctx, os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// exitStatus returns the status to exit with after err, which it prints.
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
		return err
	case c.version:
		_, err = fmt.Fprintln(stdout, version())
		return err
	}
	listeners, err := listen(ctx, c)
	if err != nil && ctx.Err() == nil { // that a signal came is no failure
		return err
	}
	w := newLogWriter(stderr)
	defer w.close()
	watch(ctx, c, listeners, log.New(w, "net-watcher: ", 0))
	return nil
}

// parse makes a config of the command line. Its errors are usageErrors, and
// flag.ErrHelp.
func parse(args []string) (config, error) {
	c := config{stat: os.Stat, lstat: os.Lstat, open: func(name string) (*os.File, error) {
		return os.OpenFile(name, os.O_RDONLY|nonblock, 0)
	}}
	flags := flag.NewFlagSet("net-watcher", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.tcp, "tcp", "localhost:60300", "")
	flags.StringVar(&c.unix, "unix", "", "")
	flags.DurationVar(&c.interval, "interval", 250*time.Millisecond, "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.DurationVar(&c.settle, "settle", 0, "")
	flags.BoolVar(&c.content, "content", false, "")
	flags.Func("exclude", "", func(pattern string) error {
		_, err := path.Match(pattern, "")
		c.exclude = append(c.exclude, pattern)
		return err
	})
	flags.IntVar(&c.max, "max", 1024, "")
	flags.BoolVar(&c.version, "version", false, "")
	err := flags.Parse(args)
	if err == nil && !c.version {
		given := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		err = c.check(given, flags.Args())
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		err = usageError{err}
	}
	return c, err
}

// check adds the targets to c, and returns what is wrong with c. given has the
// flags of the command line.
func (c *config) check(given map[string]bool, targets []string) error {
	seen := map[string]bool{}
	for _, name := range targets {
		switch {
		case name == "":
			return errors.New("empty target")
		case name[0] == '-':
			return fmt.Errorf("target %s starts with -: flags come before targets, and a file of that name is ./%[1]s", name)
		case !seen[name]:
			seen[name] = true
			c.targets = append(c.targets, name)
		}
	}
	switch {
	case len(targets) == 0:
		return errors.New("no target to watch")
	case c.tcp == "":
		return errors.New("empty -tcp address")
	case given["unix"] && c.unix == "":
		return errors.New("empty -unix path")
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

// version returns the name and version of the program, and what it was built with.
func version() string {
	v := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v = info.Main.Version
	}
	return fmt.Sprintf("net-watcher %s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// listen binds all that c names, or nothing.
func listen(ctx context.Context, c config) (listeners []net.Listener, err error) {
	if c.tcp != "" {
		lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: keepAliveInterval, Interval: keepAliveInterval, Count: keepAliveCount,
		}}
		network := "tcp"
		if strings.HasPrefix(c.tcp, "0.0.0.0:") {
			network = "tcp4" // or it would be IPv6 as well
		}
		ln, err := lc.Listen(ctx, network, c.tcp)
		if err != nil {
			return nil, fmt.Errorf("%w; -tcp chooses another address", err)
		}
		listeners = append(listeners, ln)
	}
	if c.unix != "" {
		ln, err := listenUnix(ctx, c.unix)
		if err != nil {
			closeAll(listeners)
			return nil, err
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, ln := range listeners {
		ln.Close()
	}
}

// watch polls the targets of c and serves subscribers on the listeners, which it
// owns, until ctx is done.
func watch(ctx context.Context, c config, listeners []net.Listener, logger *log.Logger) {
	debug.SetGCPercent(gcPercent)
	debug.SetMaxThreads(maxThreads)
	l := newChangeLog(c, logger)
	startPollers(ctx, c, l)
	var serving sync.WaitGroup
	if l.await(ctx) {
		l.start()
		slots := make(chan struct{}, c.max)
		for _, ln := range listeners {
			addr, isTCP := ln.Addr().(*net.TCPAddr)
			if isTCP && !addr.IP.IsLoopback() {
				logger.Printf("whoever can reach %v can subscribe, for it is not a loopback address", addr)
			}
			logger.Printf("listening on %s", quote(ln.Addr().String()))
			serving.Go(func() { serve(ctx, ln, l, slots) })
		}
	}
	<-ctx.Done()
	l.close(context.Cause(ctx))
	closeAll(listeners)
	serving.Wait()
}

// serve accepts subscribers until ln is closed, and returns when they are gone.
// A slot is waited for after Accept: a listener without clients must not hold one
// that the other needs.
func serve(ctx context.Context, ln net.Listener, l *changeLog, slots chan struct{}) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn := accept(ctx, ln, l.logger)
		if conn == nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
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
		s := l.join(conn, from)
		serving.Go(func() {
			s.serve(l)
			<-slots
		})
	}
}

// accept returns the next connection, or nil when ln is closed.
func accept(ctx context.Context, ln net.Listener, logger *log.Logger) net.Conn {
	for backOff := minBackOff; ; backOff = min(2*backOff, maxBackOff) {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			return conn
		case errors.Is(err, net.ErrClosed):
			return nil
		case backOff == minBackOff:
			logger.Printf("%v; trying again", err)
		}
		wait(ctx, backOff)
	}
}

// A subscriber is a connection and how far in the log it is. Two goroutines
// serve it: one writes, the other reads, only to learn that the peer has left.
type subscriber struct {
	id   int
	conn net.Conn
	wake chan struct{} // holds a token when there may be something to send

	// Guarded by changeLog.mu.
	cursor
	greeting []byte // to be sent first
}

// serve sends s what the log has for it until either ends, and closes the
// connection. While the log is open no write has a deadline: a suspended reader
// costs nobody anything. Nothing is formatted here, for that would grow every
// subscriber's stack.
func (s *subscriber) serve(l *changeLog) {
	var reading sync.WaitGroup
	reading.Go(func() { s.discard(l) })
	for range s.wake {
		lines, ok := l.next(s)
		if !ok {
			break
		}
		if lines == nil {
			continue
		}
		if _, err := s.conn.Write(lines); err != nil {
			break
		}
	}
	l.leave(s)
	s.conn.Close()
	reading.Wait()
}

// discard throws away what the peer sends. Its end may be a goodbye or, from nc
// and socat, only say that their input has ended: they go on reading. The two
// look the same until something is written, so s is greeted once more, which is
// true and harmless, and probed from then on.
func (s *subscriber) discard(l *changeLog) {
	var err error
	for buf := make([]byte, 64); err == nil; {
		_, err = s.conn.Read(buf)
	}
	if err != io.EOF {
		l.leave(s)
		return
	}
	l.greetAgain(s)
	var probe func()
	probe = func() {
		if _, err := s.conn.Write(nil); err != nil {
			l.leave(s)
			return
		}
		time.AfterFunc(nextProbe, probe)
	}
	time.AfterFunc(firstProbe, probe)
}

// A changeLog holds the changes that subscribers have yet to read, at most one
// record per path: a later change of a path takes the place of the earlier one.
// So who reads slowly gets the newest state of each path, once, and nobody waits
// for anybody. Pollers append to it, and every subscriber reads it at its own pace.
type changeLog struct {
	config
	started time.Time
	logger  *log.Logger
	looked  atomic.Int64  // grows while baselines are taken, unless they hang
	ready   chan struct{} // closed once the baseline of every target is in

	// What is called under mu does not block: logging, so that lines count
	// subscribers in order, and setting deadlines.
	mu       sync.Mutex
	targets  []target  // in the order of config.targets, which has their names as typed
	unknown  int       // targets without a baseline
	open     bool      // there are greetings: a baseline comes too late now
	deadline time.Time // of the last writes, once the log is closed
	seq      uint64    // of the latest change
	records  []*record // in the order of seq, dead ones among them
	byPath   map[pathKey]*record
	subs     map[*subscriber]bool
	joined   int             // subscribers ever
	behind   int             // subscribers with something to read
	spans    map[cursor]span // what those at a cursor read next, encoded once for all
	limit    int             // of records: maxRecords, except in tests
}

// A target is the latest record of one, for the greeting.
type target struct {
	record
	entries int  // in the baseline, itself included
	known   bool // its baseline is in
}

// A record is the latest change of a path: the first part as a poller saw it,
// the second as the log files it.
type record struct {
	path    string // as the protocol shows it, but not quoted
	target  int    // index of the target that it is or is below
	root    bool   // it is the target
	created bool   // it was not there before
	stamp   stamp  // of what is there now, if it is
	time    time.Time

	seq  uint64
	born uint64 // seq of the change that created the path, 0 if that is long ago
	dead bool   // a later record took its place
}

// A pathKey names a path. Targets inside each other both report it.
type pathKey struct {
	target int
	path   string
}

// A cursor is how far a subscriber has read. What was born after base is new to
// it. base moves only when everything is read: a path born before at may have
// changed since, so that its record lies after at, still untold.
type cursor struct{ at, base uint64 }

// A span is a piece of the log as lines, and the cursor behind it.
type span struct {
	lines []byte
	to    cursor
}

func newChangeLog(c config, logger *log.Logger) *changeLog {
	l := &changeLog{
		config:  c,
		started: time.Now(),
		logger:  logger,
		ready:   make(chan struct{}),
		unknown: len(c.targets),
		byPath:  map[pathKey]*record{},
		subs:    map[*subscriber]bool{},
		spans:   map[cursor]span{},
		limit:   maxRecords,
	}
	for _, name := range c.targets {
		l.targets = append(l.targets, target{record: record{path: name}})
	}
	return l
}

// baseline takes in what targets are at first. It returns false if that comes too
// late, which makes all that is there news.
func (l *changeLog) baseline(found []target) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		return false
	}
	for _, t := range found {
		l.targets[t.target] = t
	}
	l.unknown -= len(found)
	if l.unknown == 0 {
		close(l.ready)
	}
	return true
}

// await returns true when the baseline is in, or when the pollers have not moved
// for a while, and false when ctx is done.
func (l *changeLog) await(ctx context.Context) bool {
	for before, now := int64(-1), int64(0); before != now; before, now = now, l.looked.Load() {
		select {
		case <-ctx.Done():
			return false
		case <-l.ready:
			return true
		case <-time.After(stallTime):
		}
	}
	return true
}

// start opens the log for subscribers.
func (l *changeLog) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = true
	l.announce(l.targets)
}

// announce logs what targets are at first.
func (l *changeLog) announce(targets []target) {
	for _, t := range targets {
		switch {
		case !t.known:
			l.logger.Printf("%s: no answer; waiting for it", quote(t.path))
		case t.stamp.kind == directory:
			l.logger.Printf("watching %s (%d entries)", quote(t.path), t.entries)
		case t.stamp.there():
			l.logger.Printf("watching %s", quote(t.path))
		default:
			l.logger.Printf("waiting for %s", quote(t.path))
		}
	}
}

// append takes in the changes of one poll and wakes the subscribers.
func (l *changeLog) append(changes []*record) {
	if len(changes) == 0 {
		return
	}
	l.mu.Lock()
	before := cursor{l.seq, l.seq}
	for _, r := range changes {
		l.put(r)
	}
	clear(l.spans)
	l.behind = len(l.subs)
	lost := l.forget(before.at)
	l.span(before) // encoded here, for those who keep up, and not on their stacks
	waking := slices.AppendSeq(make([]*subscriber, 0, len(l.subs)), maps.Keys(l.subs))
	l.mu.Unlock()
	for _, s := range waking {
		wake(s.wake)
	}
	for _, s := range lost {
		s.conn.Close()
	}
}

// put makes r the record of its path.
func (l *changeLog) put(r *record) {
	l.seq++
	r.seq = l.seq
	if r.root {
		t := &l.targets[r.target]
		t.record = *r
		if !r.stamp.there() {
			t.path = l.config.targets[r.target] // as typed: no separator while it is gone
		}
	}
	if len(l.subs) == 0 {
		return
	}
	key := pathKey{r.target, r.path}
	if old := l.byPath[key]; old != nil {
		old.dead = true
		r.born = old.born
	}
	if r.created {
		r.born = r.seq
	}
	l.byPath[key] = r
	l.records = append(l.records, r)
}

// forget drops the records that everybody has read. If too many are left then, it
// removes the subscribers that keep them, the slowest first, and returns those.
// Nobody is removed for not having read what came after seq before.
func (l *changeLog) forget(before uint64) (lost []*subscriber) {
	for {
		read := l.seq
		for s := range l.subs {
			read = min(read, s.at)
		}
		n := 0
		for ; n < len(l.records) && l.records[n].seq <= read; n++ {
			if r := l.records[n]; !r.dead {
				delete(l.byPath, pathKey{r.target, r.path})
			}
		}
		l.records = slices.Delete(l.records, 0, n)
		if len(l.byPath) <= l.limit || read >= before {
			break
		}
		for s := range l.subs {
			if s.at == read {
				l.logger.Printf("subscriber %d has left more than %d changes unread; disconnecting it", s.id, l.limit)
				l.remove(s)
				lost = append(lost, s)
			}
		}
	}
	if len(l.records) > 2*len(l.byPath)+1000 {
		l.records = slices.DeleteFunc(l.records, func(r *record) bool { return r.dead })
	}
	return lost
}

// caughtUp notes that one more subscriber has read everything. When all have,
// nothing needs to be kept.
func (l *changeLog) caughtUp() {
	l.behind--
	if l.behind == 0 {
		l.records = nil
		l.byPath = map[pathKey]*record{}
		clear(l.spans)
	}
}

// join adds a subscriber that writes to conn. Its greeting and its cursor are
// of the same moment, so that every change is either in the one or after the
// other.
func (l *changeLog) join(conn net.Conn, from net.Addr) *subscriber {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.joined++
	s := &subscriber{id: l.joined, conn: conn, wake: make(chan struct{}, 1), cursor: cursor{l.seq, l.seq}, greeting: l.greet()}
	l.subs[s] = true
	conn.SetWriteDeadline(l.deadline) // none, as long as the log is open
	wake(s.wake)
	l.logger.Printf("subscriber %d connected from %s (%d connected)", s.id, quote(from.String()), len(l.subs))
	return s
}

// leave removes s, if that has not happened yet.
func (l *changeLog) leave(s *subscriber) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.subs[s] {
		l.remove(s)
	}
}

// remove is leave, of one of l.subs and with the lock held.
func (l *changeLog) remove(s *subscriber) {
	if s.at < l.seq {
		l.caughtUp()
	}
	delete(l.subs, s)
	wake(s.wake)
	l.logger.Printf("subscriber %d disconnected (%d connected)", s.id, len(l.subs))
}

// greetAgain has s greeted once more, unless there is something else to send.
func (l *changeLog) greetAgain(s *subscriber) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.at == l.seq {
		s.greeting = append(s.greeting, l.greet()...)
		wake(s.wake)
	}
}

// close ends the log: subscribers leave when they have read it, or after drainTime.
// What is logged ends with cause, though a poll or a subscriber may have more to say.
func (l *changeLog) close(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := log.New(l.logger.Writer(), l.logger.Prefix(), l.logger.Flags())
	l.logger.SetOutput(io.Discard)
	last.Printf("%v: closing", cause)
	l.deadline = time.Now().Add(drainTime)
	for s := range l.subs {
		s.conn.SetWriteDeadline(l.deadline)
		wake(s.wake)
	}
}

// next returns what is to be sent to s next, if there is anything yet, and wakes s
// again if there is more. It returns false when nothing more will come.
func (l *changeLog) next(s *subscriber) (lines []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.subs[s]:
		return nil, false
	case s.greeting != nil:
		lines, s.greeting = s.greeting, nil
	case s.at < l.seq:
		sp := l.span(s.cursor)
		s.cursor = sp.to
		if s.at == l.seq {
			l.caughtUp()
		}
		lines = sp.lines
	default:
		return nil, l.deadline.IsZero()
	}
	if s.at < l.seq || !l.deadline.IsZero() {
		wake(s.wake)
	}
	return lines, true
}

// span returns what is to be read at c.
func (l *changeLog) span(c cursor) span {
	sp, found := l.spans[c]
	if found {
		return sp
	}
	sp.to = c
	i, _ := slices.BinarySearchFunc(l.records, c.at+1, func(r *record, seq uint64) int { return cmp.Compare(r.seq, seq) })
	for ; i < len(l.records) && len(sp.lines) < maxSpan; i++ {
		r := l.records[i]
		if r.dead {
			continue
		}
		verb := "changed"
		switch {
		case !r.stamp.there():
			verb = "removed"
		case r.born > c.base:
			verb = "created"
		}
		sp.lines = l.appendLine(sp.lines, verb, r)
		sp.to.at = r.seq
	}
	if sp.to.at == l.seq {
		sp.to.base = l.seq
	}
	if len(l.spans) == maxSpans {
		clear(l.spans)
	}
	l.spans[c] = sp
	return sp
}

// greet returns a line for each target, as subscribers are to know it now.
func (l *changeLog) greet() []byte {
	var lines []byte
	now := time.Now()
	for _, t := range l.targets {
		verb := "waiting"
		if t.stamp.there() {
			verb = "watching"
		}
		lines = l.appendLine(lines, verb, &record{path: t.path, stamp: t.stamp, time: now, seq: l.seq})
	}
	return lines
}

// timeFormat is RFC 3339 in UTC, with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// A jsonLine is a line of -json. PathBase64 has the bytes of a path that is not
// valid UTF-8, which Path only resembles.
type jsonLine struct {
	Type       string `json:"type"`
	Time       string `json:"time"`
	Seq        uint64 `json:"seq"`
	Started    string `json:"started,omitempty"`
	Path       string `json:"path"`
	PathBase64 []byte `json:"path_base64,omitempty"`
	Size       *int64 `json:"size,omitempty"`
	Mtime      string `json:"mtime,omitempty"`
}

// appendLine appends to lines the one that says verb of r.
func (l *changeLog) appendLine(lines []byte, verb string, r *record) []byte {
	if l.json {
		return l.appendJSON(lines, verb, r)
	}
	lines = append(append(lines, verb...), ' ')
	lines = append(r.time.UTC().AppendFormat(lines, timeFormat), ' ')
	return append(append(lines, quote(r.path)...), '\n')
}

func (l *changeLog) appendJSON(lines []byte, verb string, r *record) []byte {
	j := jsonLine{Type: verb, Time: r.time.UTC().Format(timeFormat), Seq: r.seq, Path: r.path}
	if verb == "watching" || verb == "waiting" {
		j.Started = l.started.UTC().Format(timeFormat)
	}
	if !utf8.ValidString(r.path) {
		j.PathBase64 = []byte(r.path)
	}
	if r.stamp.kind == file {
		j.Size = &r.stamp.size
		j.Mtime = time.Unix(r.stamp.sec, int64(r.stamp.nsec)).UTC().Format("2006-01-02T15:04:05.000000000Z")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(j) // no field of it can fail
	return append(lines, b.Bytes()...)
}

// quote returns s as it is or, where that would not be one line that can be read
// back, as a quoted Go string.
func quote(s string) string {
	if !utf8.ValidString(s) || strings.HasPrefix(s, `"`) || strings.Trim(s, " ") != s ||
		strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// A logWriter passes what is logged on to w from a goroutine of its own, for a
// write to a terminal that is stopped, or to a full pipe, does not return.
type logWriter struct {
	wake chan struct{} // holds a token when there is something new
	done chan struct{}

	mu     sync.Mutex
	lines  []byte // to be written, at most maxUnwritten and a line
	closed bool
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for closed := false; !closed; {
			<-l.wake
			var lines []byte
			l.mu.Lock()
			lines, l.lines, closed = l.lines, nil, l.closed
			l.mu.Unlock()
			w.Write(lines) // the log is lost where it cannot be written, and nothing else
		}
	}()
	return l
}

// Write takes a line, or drops it while too much is waiting.
func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) < maxUnwritten {
		l.lines = append(l.lines, line...)
	}
	wake(l.wake)
	return len(line), nil
}

// close waits until the lines are written, or for flushTime.
func (l *logWriter) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	wake(l.wake)
	select {
	case <-l.done:
	case <-time.After(flushTime):
	}
}

// wake puts a token into c, unless there is one that nobody has taken yet.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait waits for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
