package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
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
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata to what happens")

// TestScripts runs testdata/*.txt. A script is a transcript too: commands stand
// at the margin, and what they led to is indented below them.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := linkedDir(t)
			synctest.Test(t, func(t *testing.T) {
				got := runScript(t, name, string(text), dir)
				if *update {
					err = os.WriteFile(name, []byte(got), 0o666)
				}
				if err != nil {
					t.Error(err)
				}
				if got != string(text) && !*update {
					t.Error(firstDifference(name, got, string(text)))
				}
			})
		})
	}
}

// linkedDir returns the path of a new directory that leads through a symbolic link where it can, as the path of a
// home or a temporary directory does on some systems.
func linkedDir(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"-link"); err != nil {
		return dir
	}
	return dir + "-link"
}

// TestReadme holds testdata/README.md to the table of commands, and the last line of README.md to that file.
func TestReadme(t *testing.T) {
	t.Parallel()
	var list strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&list, "    %-23s %s\n", c.name+" "+c.args, c.does)
	}
	if readme := readText(t, "testdata/README.md"); !strings.HasSuffix(readme, "The commands:\n\n"+list.String()) {
		t.Errorf("testdata/README.md does not end with\n%s", &list)
	}
	lines := strings.Split(strings.TrimSuffix(readText(t, "README.md"), "\n"), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "testdata/README.md") {
		t.Errorf("README.md ends with %q, which does not point at testdata/README.md", last)
	}
}

// firstDifference tells where the transcript got leaves the script want.
func firstDifference(name, got, want string) string {
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	heading := ""
	for i := 0; ; i++ {
		g, w := "the end", "the end"
		if i < len(gotLines) {
			g = strconv.Quote(gotLines[i])
		}
		if i < len(wantLines) {
			w = strconv.Quote(wantLines[i])
			if strings.HasPrefix(wantLines[i], "#") {
				heading = "\n" + wantLines[i]
			}
		}
		if g != w {
			return fmt.Sprintf("%s:%d: got %s, want %s%s\nthe whole transcript:\n%s", name, i+1, g, w, heading, got)
		}
	}
}

// A script is a run of one: a server on files of its own, with clients.
type script struct {
	*testing.T
	dir     string
	files   *os.Root
	grain   time.Duration // what mtimes are cut down to a multiple of
	ln      *pipeListener
	stop    context.CancelCauseFunc
	stopped chan struct{}
	clients []*client // in the order in which they joined
	out     strings.Builder
	log     *logText
	shown   int   // bytes of the log that have been printed
	touched int64 // the latest ctime that touch has made

	mu      sync.Mutex
	failing map[string]error         // what looks at these paths meet
	delays  map[string]time.Duration // how long looks at these paths take
	hung    map[string]chan struct{} // looks at and below these paths wait for them
	due     []due
	looked  time.Time // when a look last began, or was released
	fake    *fakeDisk
}

// A due command is run before or after a path is looked at next.
type due struct {
	path  string
	after bool
	words []string
}

// A command is a word of the script language.
type command struct {
	name, args, does string
	run              func(s *script, args []string) error
}

// commands returns the script language.
func commands() []command {
	return []command{
		{"watch", "[flag...] path...", "start watching, with flags as on the command line but for listening", (*script).watch},
		{"poll", "", "let one interval pass, then print what each reading subscriber got", (*script).poll},
		{"sleep", "duration", "let time pass without printing", (*script).sleep},
		{"join", "name", "subscribe", (*script).join},
		{"leave", "name", "hang up", (*script).leave},
		{"halfclose", "name", "shut down the sending side", (*script).halfClose},
		{"stall", "name", "stop reading", (*script).stall},
		{"read", "name", "read again, and print what was waiting", (*script).read},
		{"write", "path words...", "create or overwrite, mtime now", (*script).write},
		{"append", "path words...", "write at the end, mtime now", (*script).append},
		{"touch", "path duration", "set the mtime to now plus duration", (*script).touch},
		{"rewrite", "path words...", "overwrite and keep the mtime", (*script).rewrite},
		{"grain", "duration", "let later mtimes be multiples of duration", (*script).setGrain},
		{"rm", "path", "remove, with all that is below", (*script).rm},
		{"mv", "from to", "rename", (*script).mv},
		{"mkdir", "path", "make a directory", (*script).mkdir},
		{"ln", "from to", "make to a hard link to from", (*script).link},
		{"symlink", "text path", "make path a symbolic link that says text", (*script).symlink},
		{"chmod", "mode path", "change the mode", (*script).chmod},
		{"fail", "path error", "let looks at path fail: ENOENT, EACCES, EIO, ESTALE or, for opening it only, EMFILE", (*script).fail},
		{"heal", "", "let all looks succeed again", (*script).heal},
		{"delay", "path duration", "let each look at path take that long", (*script).delay},
		{"hang", "path", "let looks at path, and below it, not return", (*script).hang},
		{"release", "", "let them", (*script).release},
		{"at", "path command...", "before path is looked at or opened next, do that, once", (*script).at},
		{"after", "path command...", "after path is looked at or opened next, do that, once", (*script).after},
		{"renumber", "path", "give path and all below it other inode numbers", (*script).renumber},
		{"ctime", "path", "give path and all below it other ctimes", (*script).ctime},
		{"cache", "", "answer looks from a cache of what is there now, as NFS does; opening a directory refreshes the names in it", (*script).cache},
		{"anycase", "", "find names in any case, as the file systems of Windows do", (*script).anyCase},
		{"mount", "path type", "mount a file system over a directory, with what it held when it was last mounted there", (*script).mount},
		{"bind", "from path", "mount the file from over the file at path", (*script).bind},
		{"unmount", "path", "take away what was mounted there last, and what is mounted on it", (*script).unmount},
		{"opened", "", "print what was opened since the last time", (*script).showOpened},
		{"log", "", "print what was logged since the last time", (*script).showLog},
		{"quit", "", "end the server and print the rest", (*script).quit},
	}
}

// runScript runs the script text, which must be in a bubble, and returns it with
// the indented lines as they should be.
func runScript(t *testing.T, name, text, dir string) string {
	files, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	s := newScript(t, dir, files)
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		s.out.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.do(line); err != nil {
			t.Fatalf("%s:%d: %s: %v", name, i+1, line, err)
		}
	}
	before := s.out.Len()
	for _, d := range s.due {
		t.Errorf("%s: nobody looked at %s, to do %q", name, d.path, d.words)
	}
	if s.stop != nil && s.Context().Err() == nil {
		s.quit(nil)
	}
	return s.out.String()[:before]
}

func newScript(t *testing.T, dir string, files *os.Root) *script {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{T: t, dir: dir, files: files, grain: 1}
	s.failing, s.delays, s.hung = map[string]error{}, map[string]time.Duration{}, map[string]chan struct{}{}
	if s.fake, err = newFakeDisk(dir, real); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fake.stopCache()
	})
	return s
}

// do runs one line.
func (s *script) do(line string) error {
	words, err := split(line)
	if err != nil {
		return err
	}
	return s.run(words)
}

// run runs a command.
func (s *script) run(words []string) error {
	defer s.forgetPaths()
	for _, c := range commands() {
		if c.name != words[0] {
			continue
		}
		want := strings.Fields(c.args)
		if n := len(words) - 1; n != len(want) && (n == 0 || !strings.Contains(c.args, "...")) {
			return fmt.Errorf("usage: %s %s", c.name, c.args)
		}
		return c.run(s, words[1:])
	}
	return errors.New("unknown command")
}

func (s *script) forgetPaths() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.fake.resolved)
}

// split splits a line into words, which may be quoted as in Go.
func split(line string) ([]string, error) {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		word, err := strconv.QuotedPrefix(line)
		if err != nil {
			word, _, _ = strings.Cut(line, " ")
			words, line = append(words, word), line[len(word):]
			continue
		}
		unquoted, err := strconv.Unquote(word)
		if err != nil {
			return nil, err
		}
		words, line = append(words, unquoted), line[len(word):]
	}
	return words, nil
}

// watch starts the server, with the script's directory as working directory.
func (s *script) watch(args []string) error {
	for i, arg := range args[1:] {
		if args[i] == "-exclude-from" {
			args[i+1] = filepath.Join(s.dir, arg)
		}
	}
	c, err := parse(args)
	err = cmp.Or(err, c.unread)
	if err != nil {
		return err
	}
	c.dir, c.longWrite = s.dir, 0
	c.stat = func(name string) (os.FileInfo, error) { return s.look(name, true) }
	c.lstat = func(name string) (os.FileInfo, error) { return s.look(name, false) }
	c.open = s.open
	s.fake.events = c.mountEvents
	var ctx context.Context
	ctx, s.stop = context.WithCancelCause(s.Context())
	s.Cleanup(func() {
		s.stop(nil)
		<-s.stopped
		s.release(nil)
		time.Sleep(time.Hour) // pollers are not waited for, and time ends with the test
	})
	s.ln, s.log, s.stopped = launch(ctx, c)
	synctest.Wait()
	return nil
}

// look stats name, unless the script lets that fail.
func (s *script) look(name string, follow bool) (os.FileInfo, error) {
	s.await(name)
	defer s.doDue(name, true)
	s.mu.Lock()
	delay := s.delays[s.fake.relative(name)]
	s.mu.Unlock()
	time.Sleep(delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failing[s.failingAt(name)]; err != nil && err != syscall.EMFILE {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return s.fake.look(name, follow)
}

// open opens name, unless the script lets that fail.
func (s *script) open(name string) (*os.File, error) {
	if name == "/proc/self/mountinfo" {
		return os.Open(s.fake.mountinfo())
	}
	s.await(name)
	defer s.doDue(name, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fake.opened = append(s.fake.opened, s.fake.relative(name))
	if err := s.failing[s.failingAt(name)]; err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return s.fake.open(name)
}

// await does what is due before name is looked at. If looks hang there, it returns when they are released.
func (s *script) await(name string) {
	s.doDue(name, false)
	s.mu.Lock()
	s.looked = time.Now()
	var released chan struct{}
	for hung, ch := range s.hung {
		if below(hung, s.fake.clean(name)) {
			released = ch
		}
	}
	s.mu.Unlock()
	if released != nil {
		<-released
		s.mu.Lock()
		s.looked = time.Now()
		s.mu.Unlock()
	}
}

// doDue does what is due before or after name is looked at. That takes time, as everything does, so that what the
// server knew before is older.
func (s *script) doDue(name string, after bool) {
	s.mu.Lock()
	var words []string
	path := s.fake.clean(name)
	if i := slices.IndexFunc(s.due, func(d due) bool { return d.path == path && d.after == after }); i >= 0 {
		words = s.due[i].words
		s.due = slices.Delete(s.due, i, i+1)
	}
	s.mu.Unlock()
	if words != nil {
		time.Sleep(time.Nanosecond)
		if err := s.run(words); err != nil {
			s.Errorf("at %s %q: %v", path, words, err)
		}
		time.Sleep(time.Nanosecond)
	}
}

// failure returns the error that a look at name is to meet.
func (s *script) failure(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing[s.failingAt(name)]
}

// failingAt returns which of the failing paths name is, or is below.
func (s *script) failingAt(name string) string {
	name = s.fake.relative(name)
	for failing := range s.failing {
		if below(failing, name) {
			return failing
		}
	}
	return name
}

func (s *script) poll([]string) error {
	s.mu.Lock()
	due := len(s.due)
	s.mu.Unlock()
	time.Sleep(250 * time.Millisecond)
	if due > 0 {
		time.Sleep(time.Microsecond) // what is due takes time
	}
	s.printAll()
	return nil
}

// printAll prints what those who read have been sent.
func (s *script) printAll() {
	synctest.Wait()
	for _, c := range s.clients {
		if !c.stalled {
			s.print(c)
		}
	}
}

// print prints what c has been sent. Times are left out of text lines: they have
// a test of their own.
func (s *script) print(c *client) {
	for line := range strings.Lines(c.drain()) {
		if verb, rest, _ := strings.Cut(line, " "); line[0] != '{' && rest != "" {
			_, path, _ := strings.Cut(rest, " ")
			line = verb + " " + path
		}
		fmt.Fprintf(&s.out, "\t%s: %s", c.name, line)
	}
}

func (s *script) sleep(args []string) error {
	d, err := time.ParseDuration(args[0])
	time.Sleep(d)
	synctest.Wait()
	return err
}

func (s *script) join(args []string) error {
	c := s.ln.dial(args[0])
	s.clients = append(s.clients, c)
	synctest.Wait()
	s.print(c)
	return nil
}

// find returns the client of a name.
func (s *script) find(name string) (*client, error) {
	i := slices.IndexFunc(s.clients, func(c *client) bool { return c.name == name })
	if i < 0 {
		return nil, errors.New("nobody of that name has joined")
	}
	return s.clients[i], nil
}

func (s *script) leave(args []string) error {
	c, err := s.find(args[0])
	if err != nil {
		return err
	}
	c.up.Close()
	c.down.Close()
	c.closed.Store(true)
	s.clients = slices.DeleteFunc(s.clients, func(other *client) bool { return other == c })
	synctest.Wait()
	return nil
}

func (s *script) halfClose(args []string) error {
	c, err := s.find(args[0])
	if err != nil {
		return err
	}
	c.up.Close()
	synctest.Wait()
	return nil
}

func (s *script) stall(args []string) error {
	c, err := s.find(args[0])
	if err == nil {
		c.stalled = true
	}
	return err
}

func (s *script) read(args []string) error {
	c, err := s.find(args[0])
	if err == nil {
		c.stalled = false
		s.print(c)
	}
	return err
}

// stamp gives path, and the directory that it is in, the mtime that a file
// system with the script's grain would.
func (s *script) stamp(path string) error {
	now := time.Now().Truncate(s.grain)
	return errors.Join(s.stampDir(path), s.files.Chtimes(path, now, now))
}

func (s *script) stampDir(path string) error {
	now := time.Now().Truncate(s.grain)
	return s.files.Chtimes(filepath.Dir(path), now, now)
}

func (s *script) write(args []string) error {
	return errors.Join(s.files.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0o666), s.stamp(args[0]))
}

func (s *script) append(args []string) error {
	f, err := s.files.OpenFile(args[0], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(args[1:], " "))
	return errors.Join(err, f.Close(), s.stamp(args[0]))
}

// touch sets the mtime of a file, and sees to it that two files have different ctimes, which would be equal
// within a tick of the kernel.
func (s *script) touch(args []string) error {
	d, err := time.ParseDuration(args[1])
	mtime := time.Now().Add(d).Truncate(s.grain)
	for before := s.touched; err == nil && s.touched == before; {
		err = s.files.Chtimes(args[0], mtime, mtime)
		if fi, statErr := s.files.Stat(args[0]); err == nil && statErr == nil {
			st, _ := findStatFields().stamp(fi)
			s.touched = st.ctime
		}
		if s.touched == 0 {
			break // where there are none
		}
	}
	return err
}

func (s *script) rewrite(args []string) error {
	fi, err := s.files.Stat(args[0])
	if err != nil {
		return err
	}
	err = s.files.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0)
	return errors.Join(err, s.files.Chtimes(args[0], fi.ModTime(), fi.ModTime()))
}

// setGrain sets the grain of mtimes, and of ctimes if it is a second or more.
func (s *script) setGrain(args []string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grain, err = time.ParseDuration(args[0])
	s.fake.grain = s.grain
	return err
}

func (s *script) rm(args []string) error {
	if err := s.busy(args[0], true); err != nil {
		return err
	}
	return errors.Join(s.files.RemoveAll(args[0]), s.stampDir(args[0]))
}

func (s *script) mv(args []string) error {
	err := cmp.Or(s.busy(args[0], false), s.busy(args[1], true), s.apart(args[0], args[1]))
	if err != nil {
		return err
	}
	s.mu.Lock()
	from, to := s.fake.resolve(args[0], false), s.fake.resolve(args[1], false)
	s.mu.Unlock()
	if err = s.files.Rename(args[0], args[1]); err != nil {
		return err
	}
	s.mu.Lock()
	err = s.fake.moved(from, to)
	s.mu.Unlock()
	return errors.Join(err, s.stampDir(args[0]), s.stampDir(args[1]))
}

// busy returns an error if path is a mount point or, with all set, if there is one below it.
func (s *script) busy(path string, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake.busy(s.fake.resolve(path, false), all)
}

// apart returns an error if the directories of two paths are not on the same mount.
func (s *script) apart(a, b string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fake.coverOf(s.fake.resolve(filepath.Dir(a), true)) != s.fake.coverOf(s.fake.resolve(filepath.Dir(b), true)) {
		return syscall.EXDEV
	}
	return nil
}

func (s *script) mkdir(args []string) error {
	return errors.Join(s.files.Mkdir(args[0], 0o777), s.stamp(args[0]))
}

func (s *script) link(args []string) error {
	if err := s.apart(args[0], args[1]); err != nil {
		return err
	}
	return errors.Join(s.files.Link(args[0], args[1]), s.stampDir(args[1]))
}

func (s *script) symlink(args []string) error {
	return errors.Join(s.files.Symlink(args[0], args[1]), s.stampDir(args[1]))
}

func (s *script) chmod(args []string) error {
	mode, err := strconv.ParseUint(args[0], 8, 32)
	return errors.Join(err, s.files.Chmod(args[1], os.FileMode(mode)))
}

func (s *script) fail(args []string) error {
	errs := map[string]error{"ENOENT": syscall.ENOENT, "EACCES": syscall.EACCES, "EIO": syscall.EIO, "EMFILE": syscall.EMFILE, "ESTALE": errors.New("stale file handle")}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing[args[0]] = errs[args[1]]
	if errs[args[1]] == nil {
		return errors.New("no such error")
	}
	return nil
}

func (s *script) heal([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.failing)
	return nil
}

func (s *script) delay(args []string) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delays[args[0]], err = time.ParseDuration(args[1])
	return err
}

func (s *script) hang(args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hung[args[0]] == nil {
		s.hung[args[0]] = make(chan struct{})
	}
	return nil
}

func (s *script) release([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.hung {
		close(ch)
	}
	clear(s.hung)
	return nil
}

func (s *script) at(args []string) error { return s.addDue(args, false) }

func (s *script) after(args []string) error { return s.addDue(args, true) }

func (s *script) addDue(args []string, after bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(args) < 2 {
		return errors.New("no command")
	}
	s.due = append(s.due, due{args[0], after, args[1:]})
	return nil
}

func (s *script) renumber(args []string) error {
	return s.disguiseAs(func(m *mask) { m.ino++ }, args[0])
}

func (s *script) ctime(args []string) error {
	return s.disguiseAs(func(m *mask) { m.ctime++ }, args[0])
}

// disguiseAs changes the masks of path and all below it.
func (s *script) disguiseAs(change func(*mask), path string) error {
	if s.fake.fields.ino == nil {
		s.Skip("files have no numbers here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return filepath.WalkDir(s.fake.real+"/"+path, func(name string, _ os.DirEntry, _ error) error {
		fi, err := os.Lstat(name)
		if err == nil {
			m := s.fake.masks[identity(fi)]
			change(&m)
			s.fake.masks[identity(fi)] = m
		}
		return err
	})
}

func (s *script) cache([]string) error {
	if s.fake.fields.ino == nil || !mayOpen {
		s.Skip("nothing is opened for fresh looks here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake.startCache()
}

func (s *script) anyCase([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fake.anyCase = true
	return nil
}

func (s *script) mount(args []string) error {
	if s.fake.fields.ino == nil {
		s.Skip("no mounts are known here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake.mount(s.fake.resolve(args[0], true), args[1])
}

func (s *script) bind(args []string) error {
	if s.fake.fields.ino == nil {
		s.Skip("no mounts are known here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake.bind(s.fake.resolve(args[0], true), s.fake.resolve(args[1], true))
}

func (s *script) unmount(args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fake.unmount(s.fake.resolve(args[0], true))
}

func (s *script) showOpened([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.fake.opened {
		s.out.WriteString("\t" + name + "\n")
	}
	s.fake.opened = nil
	return nil
}

func (s *script) showLog([]string) error {
	logged := s.log.String()
	for line := range strings.Lines(strings.ReplaceAll(logged[s.shown:], s.fake.real, "DIR")) {
		s.out.WriteString("\t" + line)
	}
	s.shown = len(logged)
	return nil
}

func (s *script) quit([]string) error {
	s.stop(errors.New("interrupt"))
	s.printAll()
	<-s.stopped
	return nil
}

// A fakeDisk is what a script's files look like to the server: with mounts, with other numbers, or as a client of NFS
// remembers them. Files are always where the mounts let them be seen, so that calls that are not replaced agree. What
// is hidden or not mounted is kept aside.
type fakeDisk struct {
	dir, real string // the script's directory, as the server is given it, and with links resolved
	aside     string // a directory beside it
	made      int    // how many names have been used there
	fields    statFields
	masks     map[uint64]mask     // by the real inode number
	mounts    []*mountPoint       // in the order in which they were mounted
	devices   int                 // how many numbers have been used
	kept      map[string][]string // where the contents of what was unmounted are, by path and type
	events    *atomic.Uint64
	resolved  map[string]string // where paths lead, since the last command
	anyCase   bool              // names are found in any case
	grain     time.Duration     // of ctimes, if that is a second or more
	ctimes    map[uint64]coarseTime
	opened    []string
	top       *node            // the script's directory, as far as the cache knows it, nil without a cache
	nodes     map[uint64]*node // what the cache knows, by the real inode number
}

// A coarseTime is the ctime of a file, as a clock with a grain would have it.
type coarseTime struct {
	real  int64
	shown time.Time
}

// A mask is added to the numbers of a file.
type mask struct {
	ino   uint64
	ctime int64
}

// A mountPoint is a file system that is mounted at a path, or a file that is mounted over another one.
type mountPoint struct {
	path   string
	kind   string // as the script has it, "" for a file, whose content is not kept when it is unmounted
	fstype string
	root   string // of what is mounted, in its file system
	device int
	below  string // where that is kept which it hides
}

// key returns under which the content of m is kept when it is unmounted.
func (m *mountPoint) key() string { return m.path + " " + m.kind }

// A node is a file as it was when its attributes were last asked. It is held open, so that no other file gets its
// number.
type node struct {
	fi    os.FileInfo
	dir   *os.Root // a directory itself, wherever it has been moved
	file  *os.File
	text  string           // of a link
	names map[string]*node // in a directory, those that have been asked for, nil if they led nowhere
}

func newFakeDisk(dir, real string) (*fakeDisk, error) {
	d := &fakeDisk{dir: dir, real: real, aside: dir + "-aside", fields: findStatFields(), events: new(atomic.Uint64)}
	d.masks, d.kept, d.resolved, d.nodes = map[uint64]mask{}, map[string][]string{}, map[string]string{}, map[uint64]*node{}
	d.ctimes = map[uint64]coarseTime{}
	return d, errors.Join(os.Mkdir(d.aside, 0o777), d.writeMountinfo())
}

// relative returns the name as the script writes it.
func (d *fakeDisk) relative(name string) string {
	for _, dir := range []string{d.dir, d.real} {
		if name == dir {
			return "."
		}
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			return cmp.Or(rest, "./")
		}
	}
	return name
}

// clean returns the name without anything at its end that makes no other path of it.
func (d *fakeDisk) clean(name string) string { return filepath.Clean(d.relative(name)) }

// resolve returns where path leads. Unless follow is set, it may be a link.
func (d *fakeDisk) resolve(path string, follow bool) string {
	key := fmt.Sprint(path, follow)
	if at, known := d.resolved[key]; known {
		return at
	}
	name, last := filepath.Join(d.real, path), ""
	if !follow && !strings.HasSuffix(path, "/") {
		name, last = filepath.Dir(name), filepath.Base(name)
	}
	at := path
	if real, err := filepath.EvalSymlinks(name); err == nil {
		at = d.relative(filepath.Join(real, last))
	}
	d.resolved[key] = at
	return at
}

// below reports whether name is path or below it.
func below(path, name string) bool {
	return path == "." || name == path || strings.HasPrefix(name, path+"/")
}

// coverOf returns the index of the mount that path is on, or -1.
func (d *fakeDisk) coverOf(path string) int {
	for i, m := range slices.Backward(d.mounts) {
		if below(m.path, path) {
			return i
		}
	}
	return -1
}

// busy returns an error if path is a mount point or, with all set, if there is one below it.
func (d *fakeDisk) busy(path string, all bool) error {
	i := d.coverOf(path)
	if i >= 0 && d.mounts[i].path == path ||
		all && slices.ContainsFunc(d.mounts[i+1:], func(m *mountPoint) bool { return below(path, m.path) }) {
		return syscall.EBUSY
	}
	return nil
}

// moved takes note that what was at from is at to, and the mounts below it with it. That is no event.
func (d *fakeDisk) moved(from, to string) error {
	for _, m := range d.mounts[d.coverOf(from)+1:] {
		if below(from, m.path) {
			m.path = to + m.path[len(from):]
		}
	}
	return d.writeMountinfo()
}

// spare returns a new name for what is kept aside.
func (d *fakeDisk) spare() string {
	d.made++
	return fmt.Sprint(d.aside, "/", d.made)
}

// mount mounts the file system of kind at path, with the content that it had there when it was last unmounted. One of
// kind bind is of the device around it.
func (d *fakeDisk) mount(path, kind string) error {
	i := d.coverOf(path)
	m := &mountPoint{path: path, kind: kind, fstype: kind, root: "/"}
	if kind == "bind" {
		m.fstype, m.root, m.device = "ext4", "/elsewhere", 255
		if i >= 0 {
			m.fstype, m.device = d.mounts[i].fstype, d.mounts[i].device
		}
	} else {
		d.devices++
		m.device = d.devices
		if d.devices == 254 {
			d.devices = 0 // numbers are used again
		}
	}
	if path == "." {
		return d.add(m, "")
	}
	if fi, err := os.Stat(d.real + "/" + path); err != nil || !fi.IsDir() {
		return cmp.Or(err, error(syscall.ENOTDIR))
	}
	if kept := d.kept[m.key()]; len(kept) > 0 {
		d.kept[m.key()] = kept[:len(kept)-1]
		return d.add(m, kept[len(kept)-1])
	}
	content, now := d.spare(), time.Now()
	return errors.Join(os.Mkdir(content, 0o777), os.Chtimes(content, now, now), d.add(m, content))
}

// bind mounts the file from over the file at path.
func (d *fakeDisk) bind(from, path string) error {
	for _, name := range []string{from, path} {
		if fi, err := os.Lstat(d.real + "/" + name); err != nil || !fi.Mode().IsRegular() {
			return cmp.Or(err, errors.New("only a file is bound, over another one"))
		}
	}
	m := &mountPoint{path: path, fstype: "ext4", root: "/" + from, device: 255}
	if i := d.coverOf(from); i >= 0 {
		m.fstype, m.device = d.mounts[i].fstype, d.mounts[i].device
	}
	content := d.spare()
	return errors.Join(os.Link(d.real+"/"+from, content), d.add(m, content))
}

// add mounts m, whose content is kept at a path.
func (d *fakeDisk) add(m *mountPoint, content string) error {
	if content != "" {
		m.below = d.spare()
		err := d.keepTime(m.path, func(at string) error { return errors.Join(os.Rename(at, m.below), os.Rename(content, at)) })
		if err != nil {
			return err
		}
	}
	d.mounts = append(d.mounts, m)
	d.events.Add(1)
	return d.writeMountinfo()
}

// unmount unmounts what was last mounted at path, and first what is mounted on it.
func (d *fakeDisk) unmount(path string) error {
	i := d.coverOf(path)
	if i < 0 || d.mounts[i].path != path || path == "." {
		return errors.New("not mounted")
	}
	var errs []error
	for j := len(d.mounts) - 1; j >= i; j-- {
		m := d.mounts[j]
		if !below(path, m.path) {
			continue
		}
		content := d.spare()
		errs = append(errs, d.keepTime(m.path, func(at string) error {
			return errors.Join(os.Rename(at, content), os.Rename(m.below, at))
		}))
		if m.kind != "" {
			d.kept[m.key()] = append(d.kept[m.key()], content)
		}
		d.mounts = slices.Delete(d.mounts, j, j+1)
		d.events.Add(1)
	}
	return errors.Join(append(errs, d.writeMountinfo())...)
}

// keepTime lets f change what is at path. The directory around keeps its mtime, and the cache forgets the name, because
// a client knows what it mounts.
func (d *fakeDisk) keepTime(path string, f func(at string) error) error {
	at := d.real + "/" + path
	dir, err := os.Stat(filepath.Dir(at))
	if err != nil {
		return err
	}
	if st, _ := d.fields.stamp(dir); d.nodes[st.ino] != nil {
		delete(d.nodes[st.ino].names, filepath.Base(at))
	}
	clear(d.resolved)
	return errors.Join(f(at), os.Chtimes(filepath.Dir(at), dir.ModTime(), dir.ModTime()))
}

// writeMountinfo writes what the server is to find in /proc/self/mountinfo, which it may hold open and read at any
// moment. So the size of the file stays, as long as that is enough.
func (d *fakeDisk) writeMountinfo() error {
	var text strings.Builder
	for i, m := range d.mounts {
		escape := strings.NewReplacer(`\`, `\134`, " ", `\040`)
		fmt.Fprintf(&text, "%d 1 0:%d %s %s rw,relatime - %s source rw\n", i+2, m.device,
			escape.Replace(m.root), escape.Replace(filepath.Join(d.real, m.path)), m.fstype)
	}
	root := "1 0 0:255 / / rw,relatime shared:1 - ext4 /dev/vda rw"
	root += strings.Repeat(",x", max(0, 4000-text.Len()-len(root))/2) + "\n"
	f, err := os.OpenFile(d.mountinfo(), os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(root+text.String()), 0)
	return errors.Join(err, f.Truncate(int64(len(root)+text.Len())))
}

func (d *fakeDisk) mountinfo() string { return d.aside + "/mountinfo" }

// A disguised FileInfo has another Sys.
type disguised struct {
	os.FileInfo
	sys any
}

func (d disguised) Sys() any { return d.sys }

// disguise returns fi, of what is at path, as the masks and mounts want it.
func (d *fakeDisk) disguise(path string, fi os.FileInfo) os.FileInfo {
	sys, fields := reflect.ValueOf(fi.Sys()), d.fields
	changed := reflect.New(sys.Elem().Type())
	changed.Elem().Set(sys.Elem())
	ino := changed.Elem().FieldByIndex(fields.ino)
	sec := changed.Elem().FieldByIndex(fields.ctime).Field(0)
	if d.grain >= time.Second {
		st, _ := fields.stamp(fi)
		c := d.ctimes[st.ino]
		if c.real != st.ctime {
			c = coarseTime{st.ctime, time.Now().Truncate(d.grain)}
			d.ctimes[st.ino] = c
		}
		sec.SetInt(c.shown.Unix())
		changed.Elem().FieldByIndex(fields.ctime).Field(1).SetInt(0)
	}
	m := d.masks[ino.Uint()]
	ino.SetUint(ino.Uint() + m.ino<<24)
	sec.SetInt(sec.Int() + m.ctime)
	if i := d.coverOf(path); i >= 0 {
		if dev := changed.Elem().FieldByIndex(fields.dev); dev.CanInt() {
			dev.SetInt(int64(d.mounts[i].device))
		} else {
			dev.SetUint(uint64(d.mounts[i].device))
		}
	}
	return disguised{fi, changed.Interface()}
}

// look stats name, and the file behind it if that is a link and follow is set.
func (d *fakeDisk) look(name string, follow bool) (os.FileInfo, error) {
	var fi os.FileInfo
	var err error
	path := d.relative(name)
	switch {
	case path == name: // it is outside
		return stat(name, follow)
	case d.top != nil:
		var n *node
		if n, path, err = d.walk(path, follow); err == nil {
			fi = n.fi
		}
	default:
		fi, err = stat(d.inCase(name), follow)
	}
	if err != nil || d.fields.ino == nil || len(d.masks)+len(d.mounts) == 0 && d.grain < time.Second {
		return fi, err
	}
	if d.top == nil && (len(d.mounts) > 1 || len(d.mounts) == 1 && d.mounts[0].path != ".") {
		path = d.resolve(path, follow)
	}
	return d.disguise(path, fi), nil
}

func stat(name string, follow bool) (os.FileInfo, error) {
	if follow {
		return os.Stat(name)
	}
	return os.Lstat(name)
}

// open opens name. What the cache says of it is asked again, and so are the names in a directory if name ends with a
// separator.
func (d *fakeDisk) open(name string) (*os.File, error) {
	path := d.relative(name)
	if d.top == nil || path == name {
		return os.OpenFile(d.inCase(name), os.O_RDONLY|nonblock, 0)
	}
	n, _, err := d.walk(path, true)
	switch {
	case err != nil:
		return nil, err
	case n.file != nil:
		n.fi, _ = n.file.Stat()
		return os.Open(fmt.Sprint("/dev/fd/", n.file.Fd())) // though there may be another one of its name
	case n.dir == nil:
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	if fi, err := n.dir.Stat("."); err == nil && strings.HasSuffix(name, "/") {
		n.fi = fi
		for other := range n.names {
			d.ask(n, other)
		}
	}
	return n.dir.Open(".")
}

// inCase returns the name that is there, if names are found in any case and name only differs in case.
func (d *fakeDisk) inCase(name string) string {
	path := d.relative(name)
	if !d.anyCase || path == name {
		return name
	}
	at := d.dir
	for element := range strings.SplitSeq(path, "/") {
		if _, err := os.Lstat(at + "/" + element); err != nil {
			entries, _ := os.ReadDir(at)
			for _, e := range entries {
				if strings.EqualFold(e.Name(), element) {
					element = e.Name()
				}
			}
		}
		at += "/" + element
	}
	return at
}

// startCache lets looks be answered from a cache, which knows what is there now.
func (d *fakeDisk) startCache() error {
	root, err := os.OpenRoot(d.real)
	if err != nil {
		return err
	}
	fi, err := root.Stat(".")
	if err != nil {
		return err
	}
	d.top = &node{fi: fi, dir: root, names: map[string]*node{}}
	st, _ := d.fields.stamp(fi)
	d.nodes[st.ino] = d.top
	return filepath.WalkDir(d.real, func(name string, _ os.DirEntry, err error) error {
		if err == nil {
			d.walk(d.relative(name), false)
		}
		return err
	})
}

// stopCache lets the cache forget all.
func (d *fakeDisk) stopCache() {
	for _, n := range d.nodes {
		if n.dir != nil {
			n.dir.Close()
		}
		n.file.Close()
	}
	clear(d.nodes)
	d.top = nil
}

// walk returns what is at path, as far as the cache knows it, and where that is.
func (d *fakeDisk) walk(path string, follow bool) (*node, string, error) {
	fail := func(err error) (*node, string, error) {
		return nil, path, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	nodes, names, links := []*node{d.top}, []string{}, 0
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		name, dir := rest[0], nodes[len(nodes)-1]
		rest = rest[1:]
		switch {
		case !dir.fi.IsDir():
			return fail(syscall.ENOTDIR)
		case name == "" || name == ".":
			continue
		case name == ".." && len(names) > 0:
			nodes, names = nodes[:len(nodes)-1], names[:len(names)-1]
			continue
		}
		n, known := dir.names[name]
		if !known {
			var err error
			if n, err = d.ask(dir, name); err != nil {
				return fail(err)
			}
		}
		switch {
		case n == nil:
			return fail(syscall.ENOENT)
		case n.fi.Mode()&os.ModeSymlink == 0 || !follow && len(rest) == 0:
			nodes, names = append(nodes, n), append(names, name)
		case links == 40:
			return fail(syscall.ELOOP)
		default:
			links++
			rest = append(strings.Split(n.text, "/"), rest...)
		}
	}
	return nodes[len(nodes)-1], cmp.Or(strings.Join(names, "/"), "."), nil
}

// ask asks where the name in a directory leads now. Attributes are asked of what is new only. A link is not held, so
// that its number may be another one's by now: it is new each time.
func (d *fakeDisk) ask(dir *node, name string) (*node, error) {
	fi, err := dir.dir.Lstat(name)
	if absent(err) {
		dir.names[name] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st, _ := d.fields.stamp(fi)
	n := d.nodes[st.ino]
	if n == nil {
		n = &node{fi: fi}
		switch {
		case fi.IsDir():
			n.names = map[string]*node{}
			if n.dir, err = dir.dir.OpenRoot(name); err != nil {
				return nil, err
			}
		case fi.Mode()&os.ModeSymlink != 0:
			n.text, _ = dir.dir.Readlink(name)
		default:
			n.file, _ = dir.dir.OpenFile(name, os.O_RDONLY|nonblock, 0)
		}
		if fi.Mode()&os.ModeSymlink == 0 {
			d.nodes[st.ino] = n
		}
	}
	dir.names[name] = n
	return n, nil
}

// age has the cache forget all that was asked, as it does in time.
func (s *script) age() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fake.top == nil {
		return nil
	}
	s.fake.stopCache()
	return s.fake.startCache()
}

// A client is the far end of a connection made of two pipes, so that each
// direction can be closed for itself. Pipes hold nothing: a write returns when
// all of it is read, as on a connection whose buffers are full.
type client struct {
	name     string
	up, down net.Conn
	closed   atomic.Bool
	stalled  bool
}

// drain returns what is sent until nothing more can happen.
func (c *client) drain() string {
	var got bytes.Buffer                      // and no strings.Builder, for which io.Copy would allocate 32 KB
	c.down.SetReadDeadline(time.Now().Add(1)) // of a bubble's time, which passes when all are blocked
	if _, err := io.Copy(&got, c.down); err == nil {
		got.WriteString("EOF\n")
		c.stalled = true
	}
	return got.String()
}

// A serverConn is the server's end.
type serverConn struct {
	net.Conn // for writing
	up       net.Conn
	peer     *client
}

func (c *serverConn) Read(b []byte) (int, error) { return c.up.Read(b) }

func (c *serverConn) SetDeadline(t time.Time) error {
	return errors.Join(c.up.SetDeadline(t), c.Conn.SetDeadline(t))
}

func (c *serverConn) Close() error { return errors.Join(c.up.Close(), c.Conn.Close()) }

// Write does not wait if there is nothing to write, as a socket does not.
func (c *serverConn) Write(b []byte) (int, error) {
	if len(b) > 0 {
		return c.Conn.Write(b)
	}
	if c.peer.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	return 0, nil
}

// A pipeListener is a listener in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn, 100), make(chan struct{})}
}

func (ln *pipeListener) dial(name string) *client {
	up, serverUp := net.Pipe()
	down, serverDown := net.Pipe()
	c := &client{name: name, up: up, down: down}
	ln.conns <- &serverConn{Conn: serverDown, up: serverUp, peer: c}
	return c
}

func (ln *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-ln.conns:
		return c, nil
	case <-ln.closed:
		return nil, net.ErrClosed
	}
}

func (ln *pipeListener) Close() error {
	close(ln.closed)
	return nil
}

func (ln *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

var (
	seed = flag.Uint64("seed", 1, "first seed of TestProperty, 0 for new ones")
	ops  = flag.Int("ops", 2_000, "operations in TestProperty")
)

// TestProperty holds the program to its promise: once files keep still, every subscriber that reads to the end knows
// exactly the paths that exist, and heard of each after its last change. What is on a mount stays as it was while that
// is not mounted. No line is false, and none is late.
func TestProperty(t *testing.T) {
	t.Parallel()
	const lifetime = 500
	for done := 0; done < *ops && !t.Failed(); done += lifetime {
		s := *seed + uint64(done/lifetime)
		if *seed == 0 {
			s = rand.Uint64()
		}
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("to replay: go test -run TestProperty -ops 1 -seed %d", s)
				}
			}()
			newWorld(t, s, dir).live(lifetime)
		})
		os.RemoveAll(dir + "-aside")
		os.RemoveAll(dir) // a million operations leave many files
	}
}

const (
	root     = "top/src" // what the world's server watches
	interval = 7 * time.Millisecond
	longPass = 105 * time.Millisecond // after which all is told, also with -settle 30ms
	restless = 17 * interval          // more, if mounts change in every poll
)

// A world is a tree of files to which things happen at random, and some who listen. Things happen in the middle between
// two polls, so that the time in a line tells what it is about.
type world struct {
	*script
	rand      *rand.Rand
	began     time.Time
	did       []string // for when it fails
	list      bool     // the server runs with -list
	exclude   string   // a name that the server skips
	fast      *listener
	slow      *listener
	suspended *listener
	others    []*listener // who join and leave at random
	joined    int
	states    map[string]string    // of all files that ever were, when they were last there and not lost
	changed   map[string]time.Time // when they came to be that
	raw       view                 // what is there
	shown     view                 // the same, but what may be lost is as it was before
	seen      view                 // the same, but what is certainly lost is as it was before
	touched   map[string]time.Time // when something last happened that may be told
	points    []string             // where mounts are made
	mounted   map[string][]string  // the types of what was mounted there, at the time when most was
	flicker   []due                // what is to be done within the next polls
	first     map[string]time.Time // when a path, with its state behind it, was first seen so
	well      map[string]int       // how many file systems the server knows to be mounted there
	unsure    map[string]bool      // whether fewer are, and nobody knows whether the server knows
}

// A listener believes what it hears.
type listener struct {
	*client
	strict bool                 // it reads at once, so that it misses nothing in between
	known  map[string]time.Time // what it takes to be there, and when it last heard of it
	heard  map[string]time.Time // when it heard of all that it ever heard of
}

func newWorld(t *testing.T, seed uint64, dir string) *world {
	files, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	s := newScript(t, dir, files)
	w := &world{script: s, rand: rand.New(rand.NewPCG(seed, 0)), began: time.Now()}
	w.states, w.changed, w.touched = map[string]string{}, map[string]time.Time{}, map[string]time.Time{}
	w.raw, w.shown, w.seen = view{}, view{}, view{}
	w.mounted, w.well, w.unsure = map[string][]string{}, map[string]int{}, map[string]bool{}
	w.first = map[string]time.Time{}
	w.must(errors.Join(s.do("grain "+pick(w, "1ns", "10ms", "1s", "2s")), s.do("mkdir top"), s.do("mkdir "+root), s.do("mkdir other")))
	line := "watch -interval 7ms"
	if pick(w, true, false) {
		line += " -settle 30ms"
	}
	if pick(w, true, false, false) {
		line += " -content"
	}
	if pick(w, true, false, false) {
		line += " -open"
	}
	if w.list = pick(w, true, false); w.list {
		line += " -list"
	}
	if pick(w, true, false, false) {
		w.exclude = "c"
		line += " -exclude c"
	}
	if s.fake.fields.ino != nil {
		for range 3 {
			w.points = append(w.points, pick(w, w.anyPath(), w.anyPath(), w.anyPath(), root, "top"))
		}
		if mayOpen && pick(w, true, false, false) { // what was looked up then is what is there until something is opened
			w.must(errors.Join(s.do("mount . nfs"), s.do("cache")))
		}
	}
	w.did = append(w.did, line+" "+root)
	w.note()
	w.must(w.do(w.did[0]))
	known := map[string]time.Time{root + "/": {}}
	w.fast, w.slow, w.suspended = w.join("fast", known), w.join("slow", known), w.join("suspended", known)
	w.must(w.fast.hear(nil))
	return w
}

func pick[T any](w *world, from ...T) T { return from[w.rand.IntN(len(from))] }

// must fails the test, and tells what has been done.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("at %v: %v\nafter\n%s\nlogged\n%s", time.Since(w.began), err, strings.Join(w.did, "\n"), w.log)
	}
}

// join adds a listener who knows what is known to another one or, if there is a list, nothing yet.
func (w *world) join(name string, known map[string]time.Time) *listener {
	if w.list {
		known = nil
	}
	l := &listener{client: w.ln.dial(name), strict: name == "fast", known: map[string]time.Time{}, heard: map[string]time.Time{}}
	maps.Copy(l.known, known)
	w.clients = append(w.clients, l.client)
	synctest.Wait()
	return l
}

// live lets n things happen, and then checks what the listeners know.
func (w *world) live(n int) {
	w.align()
	for i := range n {
		w.operate()
		if w.flicker == nil && w.rand.IntN(3) > 0 {
			continue
		}
		w.pass(pick[time.Duration](w, 1, 1, 1, 2, 2, 4, 15, pick[time.Duration](w, 15, 15, 15, 500)) * interval)
		if i%20 == 0 {
			w.must(w.slow.hear(nil))
		}
		if i%50 == 0 {
			w.must(w.leave([]string{"slow"}))
			w.slow = w.join("slow", w.fast.known)
		}
		w.comeAndGo()
	}
	w.mend()
	w.pass(4 * time.Second)
	for _, l := range append(w.others, w.fast, w.slow, w.suspended) {
		w.must(l.hear(nil))
		w.must(w.compare(l))
	}
	w.must(w.quit(nil))
}

// mend releases and heals all, and mounts what ever was.
func (w *world) mend() {
	w.note()
	w.must(errors.Join(w.do("heal"), w.do("release"), w.age()))
	w.align()
	for _, point := range slices.Sorted(maps.Keys(w.mounted)) {
		for w.lost(point, len(w.mounted[point])) {
			above := slices.DeleteFunc(slices.Clone(w.mounts()), func(m *mountPoint) bool { return m.path == point || !below(point, m.path) })
			if n := len(above); n > 0 { // the last one first, which may hide another
				w.must(w.tell("unmount " + above[n-1].path))
				continue
			}
			w.must(w.tell("mount " + point + " " + w.mounted[point][len(w.mountedAt(point))]))
		}
	}
}

// tell does what is told when the test fails.
func (w *world) tell(line string) error {
	err := w.do(line)
	if err == nil {
		w.did = append(w.did, fmt.Sprint(time.Since(w.began), " ", line))
	}
	return err
}

// align waits until the middle between two polls, which have moved if they hung.
func (w *world) align() {
	synctest.Wait()
	w.mu.Lock()
	next := w.looked.Add(interval / 2)
	w.mu.Unlock()
	for next.Before(time.Now()) {
		next = next.Add(interval)
	}
	time.Sleep(time.Until(next))
}

// comeAndGo lets a listener join, read or leave. Who reads the list at once knows all that is known by then.
func (w *world) comeAndGo() {
	n := len(w.others)
	switch pick(w, "join", "read", "leave", "nothing", "nothing") {
	case "join":
		if n == 5 {
			return
		}
		w.joined++
		l := w.join(fmt.Sprint("other", w.joined), w.fast.known)
		w.others = append(w.others, l)
		if pick(w, true, false) {
			w.must(l.hear(nil))
			if !slices.Equal(slices.Sorted(maps.Keys(l.known)), slices.Sorted(maps.Keys(w.fast.known))) {
				w.must(fmt.Errorf("%s joined and knows %v, want %v", l.name, l.known, w.fast.known))
			}
		}
	case "read":
		if n > 0 {
			w.must(pick(w, w.others...).hear(nil))
		}
	case "leave":
		if n > 0 {
			l := w.others[w.rand.IntN(n)]
			w.must(w.leave([]string{l.name}))
			w.others = slices.DeleteFunc(w.others, func(other *listener) bool { return other == l })
		}
	}
}

// pass lets time go by, in which at least one poll looks at what has happened. If nothing is in the way, all is told
// by the end of a long pass, and what is mounted is known.
func (w *world) pass(d time.Duration) {
	w.note()
	cached := w.fake.top != nil
	unrest := d >= longPass && pick(w, true, false, false, false) && w.fake.fields.ino != nil
	if unrest {
		d += restless
	}
	calm := len(w.failing)+len(w.hung) == 0
	w.setDue(w.flicker)
	w.flicker = nil
	for left := d; left > 0; left -= interval {
		if unrest {
			bustle := []string{"mount", "other", "tmpfs"}
			if len(w.mountedAt("other")) > 0 {
				bustle = []string{"unmount", "other"}
			}
			w.mu.Lock()
			idle := len(w.due) == 0
			w.mu.Unlock()
			if idle {
				w.setDue([]due{{root, false, bustle}})
			}
		}
		time.Sleep(interval)
		synctest.Wait()
		if cached { // what is seen may be old
			w.must(w.fast.hear(nil))
		} else {
			w.must(w.fast.hear(w.touched))
		}
	}
	w.setDue(nil) // whatever nobody looked at
	if !calm || d < 3*interval {
		return
	}
	found := w.look()
	for _, point := range w.points {
		if n := len(w.mountedAt(point)); found[point+"/"] != "" || below(point, root) && found[root+"/"] != "" {
			w.well[point] = max(w.well[point], n)
		}
	}
	if d >= longPass && !cached {
		w.must(w.compare(w.fast))
	}
}

// setDue sets what is to be done when paths are looked at.
func (w *world) setDue(due []due) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = due
}

// note takes note of what there is to be seen.
func (w *world) note() {
	now, found := time.Now(), w.look()
	for _, m := range w.mounts() {
		if kinds := w.mountedAt(m.path); m.kind != "" && m.path != "." && m.path != "other" && len(kinds) > len(w.mounted[m.path]) {
			w.mounted[m.path] = kinds
		}
	}
	for point := range w.well {
		if found[root+"/"] == "" && !w.isKept(root) {
			w.well[point] = 0 // nothing is known of a target that is gone
		}
		if fi, err := os.Lstat(w.fake.real + "/" + point); err != nil || !fi.IsDir() || w.leads(point) != point {
			w.well[point] = 0 // it may be forgotten
		}
	}
	for point, kinds := range w.mounted {
		if w.lost(point, len(kinds)) && !w.lost(point, w.well[point]) {
			w.unsure[point] = true
		}
	}
	w.raw.update(found, now, func(string) bool { return true })
	for path, state := range found {
		if w.first[path+state].IsZero() {
			w.first[path+state] = now
		}
	}
	w.shown.update(found, now, func(path string) bool { return !w.isLost(path) })
	for _, path := range w.seen.update(found, now, func(path string) bool { return !w.isKept(path) }) {
		w.touched[path] = now
	}
	for path, state := range found {
		if len(w.hung) > 0 || w.failure(path) != nil || w.isLost(path) || w.states[path] == state ||
			state == "directory" || state == "unknown" || strings.HasPrefix(state, "link") {
			continue
		}
		w.states[path], w.changed[path] = state, w.shown[path].since
		for point := range w.unsure {
			if below(point, path) {
				w.changed[path] = time.Time{} // the server may have known it all the time
			}
		}
		if since := w.raw[path].since; since.Before(w.changed[path]) {
			w.changed[path] = since // it was lost, and was that all the same
		}
		if first := w.first[path+state]; len(w.mounted) > 0 && first.Before(w.changed[path]) {
			w.changed[path] = first // another mount hid it meanwhile, perhaps when no poll looked
		}
	}
	for point := range w.unsure {
		if len(w.hung)+len(w.failing) == 0 && !w.isLost(point) {
			delete(w.unsure, point)
		}
	}
}

// A view is what is to be seen of paths, and since when.
type view map[string]seen

type seen struct {
	state string
	since time.Time
}

// update takes note of what is found of those paths that can be looked at. It returns those that differ.
func (v view) update(found map[string]string, now time.Time, can func(path string) bool) (differ []string) {
	for path := range v {
		if found[path] == "" && can(path) {
			delete(v, path)
			differ = append(differ, path)
		}
	}
	for path, state := range found {
		if v[path].state != state && can(path) {
			v[path] = seen{state, now}
			differ = append(differ, path)
		}
	}
	return differ
}

// mountedAt returns the types of what is mounted at point.
func (w *world) mountedAt(point string) (kinds []string) {
	for _, m := range w.mounts() {
		if m.path == point && m.kind != "" {
			kinds = append(kinds, m.kind)
		}
	}
	return kinds
}

// mounts returns what is mounted.
func (w *world) mounts() []*mountPoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.fake.mounts)
}

// leads returns where path leads.
func (w *world) leads(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fake.resolve(path, true)
}

// lost reports whether point is a directory at which fewer than n file systems are mounted.
func (w *world) lost(point string, n int) bool {
	fi, err := os.Lstat(w.fake.real + "/" + point)
	return err == nil && fi.IsDir() && len(w.mountedAt(point)) < n && w.leads(point) == point
}

// isLost reports whether path may be kept as it was, because something is not mounted.
func (w *world) isLost(path string) bool {
	for point, kinds := range w.mounted {
		if below(point, path) && w.lost(point, len(kinds)) {
			return true
		}
	}
	return false
}

// isKept reports whether path is kept as it was.
func (w *world) isKept(path string) bool {
	for point, n := range w.well {
		if below(point, path) && w.lost(point, n) {
			return true
		}
	}
	return false
}

// operate does something to the tree. What cannot be done to what is there is as if it had not been tried.
func (w *world) operate() {
	a, b, n := w.anyPath(), w.anyPath(), strconv.Itoa(1000+len(w.did))
	op := pick(w, "write "+a+" "+n, "write "+a+" "+n+n, "write "+b+" "+n, "append "+a+" "+n, "touch "+a+" -"+n+"h",
		"mv "+a+" "+b, "mv "+b+" "+a, "mkdir "+a, "mkdir "+b, "rm "+a, "symlink "+filepath.Base(b)+" "+a, "ln "+a+" "+b,
		"chmod 755 "+a, "fail "+a+" EIO", "heal", "heal", "hang "+a, "release", "release", "renumber "+a, "age", "link",
		"mount", "mount", "unmount", "remount", "flicker", "flicker", "bind "+a+" "+b)
	switch op {
	case "age":
		w.must(w.age())
	case "link":
		if fi, err := os.Lstat(w.dir + "/" + a); err == nil && fi.IsDir() && a != root && w.tell("mv "+a+" "+a+"2") == nil {
			w.must(w.tell("symlink " + filepath.Base(a) + "2 " + a))
		}
	case "release":
		w.note() // what a poll that goes on sees at once
		w.tell(op)
		w.align()
	case "mount", "unmount", "remount", "flicker":
		if len(w.points) > 0 {
			w.operateMount(op, pick(w, w.points...))
		}
	default:
		if verb, _, _ := strings.Cut(op, " "); verb == "bind" && len(w.points) == 0 {
			return
		}
		w.tell(op)
		if strings.HasPrefix(op, "renumber") { // with a new ctime in the same poll, that is another file
			for path := range w.seen {
				w.touched[path] = time.Now()
			}
		}
	}
}

// operateMount does something to what is mounted at point, or to a file that is mounted.
func (w *world) operateMount(op, point string) {
	kinds := w.mountedAt(point)
	nested := slices.ContainsFunc(w.mounts(), func(m *mountPoint) bool { return m.path != point && below(point, m.path) })
	switch {
	case op == "mount" && !nested && len(kinds) < 2:
		kind := pick(w, "nfs", "bind")
		if w.fake.top == nil {
			kind = pick(w, "nfs", "ext4", "bind")
		}
		if n := len(kinds); n < len(w.mounted[point]) && pick(w, true, true, false) {
			kind = w.mounted[point][n]
		}
		below, _ := os.ReadDir(w.dir + "/" + point)
		if w.tell("mount "+point+" "+kind) != nil {
			return
		}
		if now, _ := os.ReadDir(w.dir + "/" + point); len(now) == 0 { // it is new
			for _, d := range below {
				w.tell("write " + point + "/" + d.Name() + " over" + strconv.Itoa(len(w.did)))
			}
		}
	case op == "unmount":
		if i := slices.IndexFunc(w.mounts(), func(m *mountPoint) bool { return m.kind == "" }); i >= 0 && pick(w, true, false) {
			point = w.mounts()[i].path // a file
		}
		w.tell("unmount " + point)
	case len(kinds) == 0 || nested:
	case op == "remount":
		if w.tell("unmount "+point) == nil { // else a link leads elsewhere by now
			w.must(w.tell("mount " + point + " " + kinds[len(kinds)-1]))
		}
	case op == "flicker" && w.well[point] == len(kinds):
		var paths []string
		for path := range w.seen {
			if below(point, path) {
				paths = append(paths, strings.TrimSuffix(path, "/"))
			}
		}
		slices.Sort(paths)
		path := pick(w, append(paths, point)...)
		goes := due{path, false, []string{"unmount", point}}
		comes := due{path, true, []string{"mount", point, kinds[len(kinds)-1]}}
		w.flicker = pick(w, []due{goes}, []due{goes, comes}, []due{goes, comes, goes, comes}, []due{goes, comes, goes, comes, goes, comes})
		w.did = append(w.did, fmt.Sprint(time.Since(w.began), " in the next polls ", w.flicker))
	}
}

func (w *world) anyPath() string {
	var path strings.Builder
	path.WriteString(root)
	for range pick(w, 1, 1, 2, 2, 3, pick(w, 0, 3)) {
		path.WriteString(pick(w, "/a", "/b", "/c"))
	}
	return path.String()
}

// look returns what is on disk: a state for every path as the protocol shows it.
func (w *world) look() map[string]string {
	found := map[string]string{}
	filepath.WalkDir(w.dir+"/"+root, func(path string, d os.DirEntry, _ error) error {
		name := strings.TrimPrefix(path, w.dir+"/")
		if d != nil && d.Name() == w.exclude && d.IsDir() {
			return fs.SkipDir
		} else if d != nil && d.Name() == w.exclude {
			return nil
		}
		fi, err := os.Stat(path)
		switch {
		case absent(err): // a link to nothing
		case err != nil:
			found[name] = "unknown" // a link to itself
		case d.IsDir():
			found[name+"/"] = "directory"
		case fi.IsDir():
			fi, err = d.Info()
			w.must(err)
			found[name] = fmt.Sprint("link to a directory ", identity(fi), fi.ModTime())
		default:
			content, err := os.ReadFile(path)
			w.must(err)
			found[name] = fmt.Sprint(identity(fi), fi.ModTime(), string(content))
		}
		return nil
	})
	return found
}

// compare checks what l knows against what is on disk.
func (w *world) compare(l *listener) error {
	found := w.look()
	for path := range l.known {
		if found[path] == "" && !loops(found, path) && !w.isLost(path) {
			return fmt.Errorf("%s knows of %s, which is not there", l.name, path)
		}
	}
	for path, state := range found {
		heard, known := l.known[path]
		if state == "unknown" || w.isLost(path) {
			continue
		}
		if !known {
			return fmt.Errorf("%s does not know of %s", l.name, path)
		}
		if heard.Before(w.changed[path].Truncate(time.Millisecond)) { // as lines tell it
			return fmt.Errorf("%s heard of %s at %v, which changed at %v", l.name, path, heard.Sub(w.began), w.changed[path].Sub(w.began))
		}
	}
	return nil
}

// loops reports whether path, or a directory that it was in, is a link to itself
// now. That is an error and no absence, so the last state of all below is kept.
func loops(found map[string]string, path string) bool {
	for path = filepath.Clean(path); path != "."; path = filepath.Dir(path) {
		if found[path] == "unknown" {
			return true
		}
	}
	return false
}

// hear takes in what l is sent, each line of which must fit what it knows. Unless touched is nil, it tells when a path
// was last touched, without which nothing is heard of it.
func (l *listener) hear(touched map[string]time.Time) error {
	for line := range strings.Lines(l.drain()) {
		var verb, stamp, path string
		if _, err := fmt.Sscan(line, &verb, &stamp, &path); err != nil {
			return fmt.Errorf("%s heard %q: %v", l.name, line, err)
		}
		when, err := time.Parse(timeFormat, stamp)
		if err != nil {
			return err
		}
		_, known := l.known[path]
		parent := filepath.Dir(strings.TrimSuffix(path, "/")) + "/"
		_, parentKnown := l.known[parent]
		holds := false
		for other := range l.known {
			holds = holds || strings.HasSuffix(path, "/") && other != path && strings.HasPrefix(other, path)
		}
		switch {
		case verb == "created" && (known && l.strict || !parentKnown && filepath.Clean(path) != root),
			verb == "changed" && !known,
			verb == "removed" && (!known && l.strict || holds):
			return fmt.Errorf("%s heard %s and knows %v", l.name, line, l.known)
		case touched != nil && touched[path].Before(l.heard[path]) || touched != nil && touched[path].IsZero():
			return fmt.Errorf("%s heard %s and nothing has happened to that since %v", l.name, strings.TrimSpace(line), l.heard[path])
		case verb == "created" || verb == "changed":
			l.known[path], l.heard[path] = when, when
		case verb == "removed":
			delete(l.known, path)
			l.heard[path] = when
		}
	}
	return nil
}

// begin starts the server on c, in a bubble, and returns what clients connect to
// and where it logs.
func begin(t *testing.T, c config) (*pipeListener, *logText) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ln, logged, stopped := launch(ctx, c)
	t.Cleanup(func() {
		cancel()
		<-stopped
		time.Sleep(time.Hour) // pollers are not waited for, and time ends with the test
	})
	return ln, logged
}

// launch is begin for who ends the server themselves, by ctx. It also returns what
// is closed when the server has ended.
func launch(ctx context.Context, c config) (*pipeListener, *logText, chan struct{}) {
	ln, logged, stopped := newPipeListener(), new(logText), make(chan struct{})
	go func() {
		defer close(stopped)
		watch(ctx, c, []net.Listener{ln}, log.New(logged, "", 0))
	}()
	return ln, logged, stopped
}

// configure returns the config of a command line.
func configure(t testing.TB, args ...string) config {
	t.Helper()
	c, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verbs returns the lines without their times.
func verbs(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		var verb, stamp, path string
		fmt.Sscan(line, &verb, &stamp, &path)
		fmt.Fprintln(&b, verb, path)
	}
	return b.String()
}

// writeFiles makes files with an old mtime in dir.
func writeFiles(t testing.TB, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1e8, 1), time.Unix(1e8, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlower counts the calls that have help, among and after some that are slow.
func TestSlower(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		network         bool
		slow, fast      int // calls in a round, the fast ones first
		rounds          int
		helped, helpFor int // calls that had help by then, and of those that came later
	}{
		{true, 1, 0, 1, 0, 128},
		{true, 1, 50, 3, 102, 128},
		{false, 4, 0, 1, 0, 0},
		{false, 5, 0, 1, 0, 16},
		{false, 1, 16, 100, 0, 0},
		{false, 2, 16, 100, 1727, 128},
		{false, 100, 0, 1, 95, 128},
	} {
		var slow int64
		helped, helpFor := 0, 0
		call := func(took time.Duration, count *int) {
			if slow > helpAbove {
				*count++
			}
			slow = slower(slow, took, tt.network)
		}
		for range tt.rounds {
			for range tt.fast {
				call(slowCall, &helped)
			}
			for range tt.slow {
				call(slowCall+1, &helped)
			}
		}
		for range 300 {
			call(0, &helpFor)
		}
		if helped != tt.helped || helpFor != tt.helpFor {
			t.Errorf("%+v: got %d, and %d later", tt, helped, helpFor)
		}
	}
}

// TestSlowFirst polls a small tree where the first calls of each poll are slow, as after any pause. That is no reason for
// help, however many polls there have been.
func TestSlowFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 9 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c, calls := configure(t, dir+"/tree").pollConfig, 0
		c.lstat = func(name string) (os.FileInfo, error) {
			if calls++; calls <= 2 {
				time.Sleep(2 * slowCall)
			}
			return os.Lstat(name)
		}
		c.stat = c.lstat
		p := quietPoller(c, dir+"/tree")
		for n := range 100 {
			calls = 0
			if p.poll(t.Context()); p.isSlow() {
				t.Fatalf("poll %d ends with help", n)
			}
		}
	})
}

// TestSlowAbsent polls a tree of links to nothing where a stat takes a millisecond. 1,000 in a row would take a second.
func TestSlowAbsent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 1000 {
		writeFiles(t, dir, fmt.Sprintf("tree/%03d", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree").pollConfig
		c.lstat = func(string) (os.FileInfo, error) {
			time.Sleep(time.Millisecond)
			return nil, fs.ErrNotExist
		}
		p := quietPoller(c, dir+"/tree")
		start := time.Now()
		p.poll(t.Context())
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("a poll took %v of the bubble's time", took)
		}
	})
}

// TestSlowPeriod polls a tree on a network mount where only looks at directories are slow, each the eighth after the one
// before.
func TestSlowPeriod(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 700 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d/%d", i/7, i))
	}
	synctest.Test(t, func(t *testing.T) {
		c, slow := configure(t, dir+"/tree").pollConfig, false
		c.lstat = func(name string) (os.FileInfo, error) {
			fi, err := os.Lstat(name)
			if err == nil && fi.IsDir() && slow {
				time.Sleep(10 * time.Millisecond)
			}
			return fi, err
		}
		p := quietPoller(c, dir+"/tree")
		p.poll(t.Context())
		p.poll(t.Context())
		slow = true
		for _, e := range p.roots[0].site.entries {
			e.site.network = true
		}
		p.answers.Store(0)
		start := time.Now()
		p.poll(t.Context())
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("a poll took %v of the bubble's time", took)
		}
	})
}

// TestSlowStat has stats that take a millisecond: 1,000 in a row would take a second.
func TestSlowStat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 1000 {
		writeFiles(t, dir, fmt.Sprintf("tree/%03d", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		c.lstat = func(name string) (os.FileInfo, error) {
			time.Sleep(time.Millisecond)
			return os.Lstat(name)
		}
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.down.SetReadDeadline(time.Now().Add(time.Minute))
		j.down.Read(make([]byte, 1000))
		os.Remove(dir + "/tree/999")
		writeFiles(t, dir, "tree/new")
		start := time.Now()
		lines := bufio.NewReader(j.down)
		for range 2 { // created and, a poll later, removed
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took > 2*c.interval+3*40*time.Millisecond {
			t.Errorf("two polls took %v of the bubble's time", took)
		}
	})
}

// TestSlowBaseline says how far it is, which never is less than before.
func TestSlowBaseline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 300 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d/file", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		c.lstat = func(name string) (os.FileInfo, error) {
			time.Sleep(430 * time.Millisecond)
			return os.Lstat(name)
		}
		c.open = func(name string) (*os.File, error) {
			time.Sleep(430 * time.Millisecond)
			return os.Open(name)
		}
		_, logged := begin(t, c)
		time.Sleep(time.Minute)
		got := logged.String()
		rest, last, lines := got, 0, 0
		for line, more, ok := strings.Cut(rest, "\n"); ok; line, more, ok = strings.Cut(rest, "\n") {
			var n int
			if _, err := fmt.Sscanf(line, "reading "+dir+"/tree/: %d entries so far", &n); err != nil {
				break
			}
			if n <= last {
				t.Errorf("logged %d entries after %d", n, last)
			}
			rest, last, lines = more, n, lines+1
		}
		if want := fmt.Sprintf("watching %s/tree/ (601 entries)\nlistening on pipe\n", dir); rest != want || lines < 4 {
			t.Errorf("logged %q, want 4 lines or more of progress and then %q", got, want)
		}
	})
}

// TestTime has a file change during a poll that takes long: the line tells when
// that was seen, which is not before.
func TestTime(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "a")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/a")
		var slow atomic.Bool
		c.stat = func(name string) (os.FileInfo, error) {
			if slow.Load() {
				time.Sleep(10 * time.Second)
			}
			return os.Stat(name)
		}
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		slow.Store(true)
		time.Sleep(5 * time.Second)
		now := time.Now()
		if err := os.Chtimes(dir+"/a", now, now); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		line := j.drain()
		var verb, stamp string
		fmt.Sscan(line, &verb, &stamp)
		if at, err := time.Parse(timeFormat, stamp); verb != "changed" || err != nil || at.Before(now.Truncate(time.Millisecond)) {
			t.Errorf("got %q of a change at %v", line, now.UTC())
		}
	})
}

// TestKindChangeAfterReading has what a directory lists become something else before its stat: the verdict of the
// patterns is about what is there then.
func TestKindChangeAfterReading(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, "file", "dir/kept")
	c := configure(t, "-list", "-exclude", "file/", "-exclude", "/dir", "-exclude", "!/dir/", dir).pollConfig
	var atFile, atDir sync.Once
	c.lstat = func(name string) (os.FileInfo, error) {
		switch filepath.Base(name) {
		case "file":
			atFile.Do(func() {
				os.Remove(name)
				writeFiles(t, name, "below")
			})
		case "dir":
			atDir.Do(func() {
				os.RemoveAll(name)
				writeFiles(t, dir, "dir")
			})
		}
		return os.Lstat(name)
	}
	var paths []string
	g := newPolling([]string{dir}, c, log.New(io.Discard, "", 0), func(changes []change) {
		for _, ch := range changes {
			paths = append(paths, ch.path)
		}
	})
	p := g.newPoller(dir, []*entry{{path: dir, site: &site{target: &target{}}}}, true, 0)
	for range 3 {
		p.poll(t.Context())
	}
	if want := []string{withSeparator(dir)}; !slices.Equal(paths, want) {
		t.Errorf("reported %q, want %q", paths, want)
	}
	if n := len(p.roots[0].site.entries); n > 0 {
		t.Errorf("%d entries are left, want none", n)
	}
}

// TestReplacedWhileHashed replaces a file between the look at its stamp and the look
// at its content. That is one change, of which the next stamp tells.
func TestReplacedWhileHashed(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		writeFiles(t, dir, "a", "b")
		now := time.Now()
		if err := os.Chtimes(dir+"/a", now, now); err != nil {
			t.Fatal(err)
		}
		c := configure(t, dir+"/a")
		opened := 0
		c.open = func(name string) (*os.File, error) {
			if opened++; opened == 2 {
				if err := os.Rename(dir+"/b", dir+"/a"); err != nil {
					t.Error(err)
				}
			}
			return os.Open(name)
		}
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		time.Sleep(time.Minute)
		if got, want := verbs(j.drain()), "changed "+dir+"/a\n"; got != want || opened < 2 {
			t.Errorf("sent %q after %d opens, want %q", got, opened, want)
		}
	})
}

// TestOtherNumber has a file system that numbers a file anew when it is opened.
func TestOtherNumber(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "a", "b")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, "-content", dir+"/a")
		c.open = func(string) (*os.File, error) { return os.Open(dir + "/b") }
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		if err := errors.Join(os.WriteFile(dir+"/b", []byte("c"), 0), os.Chtimes(dir+"/b", time.Unix(1e8, 1), time.Unix(1e8, 1))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, want := verbs(j.drain()), "changed "+dir+"/a\n"; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	})
}

// TestForgotten removes a tree within an interval, and makes a file of a directory with files. Once that is
// told, nobody looks at what was there.
func TestForgotten(t *testing.T) {
	for _, tt := range []struct {
		name, target, want string
		change             func(dir string) error
	}{
		{"removed", "tree", "removed tree/d/1\nremoved tree/d/0\nremoved tree/d/\nremoved tree/\n",
			func(dir string) error { return os.RemoveAll(dir + "/tree") }},
		{"removed below", "tree", "removed tree/d/1\nremoved tree/d/0\nremoved tree/d/\n",
			func(dir string) error { return os.RemoveAll(dir + "/tree/d") }},
		{"now a file", "tree", "removed tree/d/1\nremoved tree/d/0\nremoved tree/d/\nremoved tree/\ncreated tree\n",
			func(dir string) error {
				return errors.Join(os.RemoveAll(dir+"/tree"), os.WriteFile(dir+"/tree", nil, 0o666))
			}},
		{"now a file below", "tree", "removed tree/d/1\nremoved tree/d/0\nremoved tree/d/\ncreated tree/d\n",
			func(dir string) error {
				return errors.Join(os.RemoveAll(dir+"/tree/d"), os.WriteFile(dir+"/tree/d", nil, 0o666))
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, "tree/d/0", "tree/d/1")
			synctest.Test(t, func(t *testing.T) {
				c := configure(t, dir+"/tree")
				var looks atomic.Int64
				c.lstat = func(name string) (os.FileInfo, error) {
					if strings.HasPrefix(name, dir+"/tree/d/") || name == dir+"/tree/d" && tt.name == "removed below" {
						looks.Add(1)
					}
					return os.Lstat(name)
				}
				ln, _ := begin(t, c)
				j := ln.dial("j")
				j.drain()
				if err := tt.change(dir); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if got := strings.ReplaceAll(verbs(j.drain()), dir+"/", ""); got != tt.want {
					t.Errorf("sent %q, want %q", got, tt.want)
				}
				looks.Store(0)
				time.Sleep(time.Minute)
				if n := looks.Load(); n > 0 {
					t.Errorf("%d looks at what is gone, want none", n)
				}
			})
		})
	}
}

// TestFewLeft keeps one of a hundred files: what was kept of the others is garbage. Then it removes the tree.
func TestFewLeft(t *testing.T) {
	t.Parallel()
	const n = 100
	dir := t.TempDir()
	for i := range n {
		writeFiles(t, dir, fmt.Sprintf("tree/%04d", i))
	}
	p := quietPoller(configure(t, dir+"/tree").pollConfig, dir+"/tree")
	p.poll(t.Context())
	var freed atomic.Int64
	for _, e := range p.roots[0].site.entries {
		runtime.AddCleanup(e, func(int) { freed.Add(1) }, 0)
	}
	for i := 1; i < n; i++ {
		os.Remove(fmt.Sprintf("%s/tree/%04d", dir, i))
	}
	for range 4 {
		p.poll(t.Context())
	}
	until(t, func() bool {
		runtime.GC()
		return freed.Load() == n-1
	}, "end of the entries of files that are gone, but of %v", &freed)
	if left := len(p.roots[0].site.entries); left != 1 {
		t.Errorf("%d entries are left, want 1", left)
	}
	os.RemoveAll(dir + "/tree")
	for range 4 {
		p.poll(t.Context())
	}
	if left := len(p.roots[0].site.entries); left != 0 {
		t.Errorf("%d entries are left of a tree that is gone, want none", left)
	}
	runtime.KeepAlive(p)
}

// TestLongPoll has polls that take half a minute, but get answers, and polls that are far apart: no log speaks
// of that.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 100 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d", i))
	}
	for interval, call := range map[string]time.Duration{"250ms": patience * 3 / 4, "1m": patience / 2} {
		synctest.Test(t, func(t *testing.T) {
			c := configure(t, "-interval", interval, dir+"/tree")
			var slow atomic.Bool
			c.stat = func(name string) (os.FileInfo, error) {
				if slow.Load() {
					time.Sleep(call)
				}
				return os.Lstat(name)
			}
			c.lstat = c.stat
			_, logged := begin(t, c)
			time.Sleep(30 * time.Second)
			before := logged.String()
			slow.Store(true)
			time.Sleep(time.Hour)
			if got := strings.TrimPrefix(logged.String(), before); got != "" {
				t.Errorf("-interval %s: logged %q, want nothing", interval, got)
			}
		})
	}
}

// TestUnreadableMounts has the table of mounts change and not be readable for two polls. A share that goes later, when it
// is readable again, is not removed, and in between it is opened as before.
func TestUnreadableMounts(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		files, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		s := newScript(t, dir, files)
		run := func(lines string) {
			for line := range strings.SplitSeq(lines, "; ") {
				if err := s.do(line); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
		}
		run("mkdir share; mount share nfs; write share/b two; touch share/b -48h; watch share; join j; poll; log")
		table, err := os.ReadFile(s.fake.mountinfo())
		if err != nil {
			t.Fatal(err)
		}
		os.Truncate(s.fake.mountinfo(), 0)
		s.fake.events.Add(1)
		run("poll; opened")
		s.out.Reset()
		run("poll; opened")
		os.WriteFile(s.fake.mountinfo(), table, 0o666)
		run("poll; unmount share; poll; poll; poll; log; quit")
		if got, want := s.out.String(), "\tshare/\n\tDIR/share/: not mounted; keeping its last state\n\tj: EOF\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestAbsent tells absence from errors that say nothing of it.
func TestAbsent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fs.ErrNotExist, true},
		{&os.PathError{Op: "stat", Path: "a", Err: syscall.ENOENT}, true},
		{&os.PathError{Op: "stat", Path: "a", Err: syscall.ENOTDIR}, true}, // a parent is a file
		{&os.PathError{Op: "stat", Path: "a", Err: syscall.EACCES}, false},
		{&os.PathError{Op: "stat", Path: "a", Err: syscall.EIO}, false},
		{&os.PathError{Op: "stat", Path: "a", Err: syscall.ELOOP}, false},
		{&os.PathError{Op: "stat", Path: "a", Err: errors.Join(syscall.Errno(53), fs.ErrNotExist)}, false}, // ERROR_BAD_NETPATH
		{fs.ErrPermission, false},
	} {
		if got := absent(tt.err); got != tt.want {
			t.Errorf("got %v of %v, want %v", got, tt.err, tt.want)
		}
	}
}

// hashed lets the poller of a file of its own read the content, which change alters when it is opened. It
// returns what came of that, and how often the poller noted an answer.
func hashed(t *testing.T, size int64, change func(path string) error) (answers uint64, err error) {
	path := filepath.Join(t.TempDir(), "a")
	if err := errors.Join(os.WriteFile(path, nil, 0o666), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	c := configure(t, path).pollConfig
	open := c.open
	c.open = func(name string) (*os.File, error) {
		if err := change(path); err != nil {
			t.Error(err)
		}
		return open(name)
	}
	p := quietPoller(c, path)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := p.fields.stamp(fi)
	_, err = p.sum(path, st, true, &p.answers)
	return p.answers.Load(), err
}

// TestHashProgress reads a large file: each part is an answer, or a server would start without a file whose
// content comes slowly.
func TestHashProgress(t *testing.T) {
	t.Parallel()
	answers, err := hashed(t, maxHashed, func(string) error { return nil })
	if answers < 10 || err != nil {
		t.Errorf("got %d answers and %v, want 10 or more", answers, err)
	}
}

// TestHashLimit has a file grow to a gigabyte when it is opened. No more of it is read than of any other.
func TestHashLimit(t *testing.T) {
	t.Parallel()
	most, err := hashed(t, maxHashed, func(string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	answers, err := hashed(t, maxHashed, func(path string) error { return os.Truncate(path, 1<<30) })
	if answers > most || err != errMoved {
		t.Errorf("got %v after %d reads, want %v after at most %d", err, answers, errMoved, most)
	}
}

// BenchmarkPoll measures a poll that finds nothing changed beside its limit,
// which is os.Lstat of the same names.
func BenchmarkPoll(b *testing.B) {
	for _, bm := range []struct {
		name        string
		dirs, files int // directories, and files in each of those that hold no directories
	}{{"1-file", 1, 1}, {"100000-files", 1110, 100}} {
		b.Run(bm.name, func(b *testing.B) {
			dir := b.TempDir()
			for i := range bm.dirs - bm.dirs/10 { // the tenth part holds the rest
				for j := range bm.files {
					writeFiles(b, dir, fmt.Sprintf("%d/%d/%d/%d", i%10, i/10%10, i, j))
				}
			}
			c, err := parse([]string{dir})
			if err != nil {
				b.Fatal(err)
			}
			p := quietPoller(c.pollConfig, dir)
			p.poll(b.Context())
			p.poll(b.Context())
			b.Run("poll", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.poll(b.Context())
				}
			})
			var names []string
			filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
				names = append(names, name)
				return err
			})
			b.Run("limit", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for _, name := range names {
						os.Lstat(name)
					}
				}
			})
		})
	}
}

// memory returns what is in use, goroutines' stacks included.
func memory() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkTargets measures a poll of 3,000 targets in 3,000 directories that finds nothing changed
// beside its limit, which is os.Stat of the same paths.
func BenchmarkTargets(b *testing.B) {
	dir := b.TempDir()
	c := configure(b, dir).pollConfig
	var pollers []*poller
	for i := range 3000 {
		writeFiles(b, dir, fmt.Sprintf("%d/file", i))
		pollers = append(pollers, quietPoller(c, fmt.Sprintf("%s/%d/file", dir, i)))
		pollers[i].poll(b.Context())
	}
	b.Run("poll", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, p := range pollers {
				p.poll(b.Context())
			}
		}
	})
	b.Run("limit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, p := range pollers {
				os.Stat(p.roots[0].path)
			}
		}
	})
}

// quietPoller returns a poller of a tree that reports to nobody.
func quietPoller(c pollConfig, dir string) *poller {
	g := newPolling([]string{dir}, c, log.New(io.Discard, "", 0), func([]change) {})
	return g.newPoller(dir, []*entry{{path: dir, site: &site{target: &target{}}}}, true, 0)
}

// identity returns what tells a file from another one of the same content.
func identity(fi os.FileInfo) uint64 {
	st, _ := findStatFields().stamp(fi)
	return st.ino
}

// TestManyErrors has each file of a tree fail by itself. Whether their directory can be searched is asked when
// that begins, and not at every poll.
func TestManyErrors(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		writeFiles(t, dir, fmt.Sprintf("tree/%d", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		var fails atomic.Bool
		var searches atomic.Int64
		c.lstat = func(name string) (os.FileInfo, error) {
			if strings.HasSuffix(name, "/.") {
				searches.Add(1)
			} else if fails.Load() {
				return nil, syscall.EIO
			}
			return os.Lstat(name)
		}
		_, logged := begin(t, c)
		fails.Store(true)
		time.Sleep(time.Second)
		if n := strings.Count(logged.String(), "input/output error"); n != 100 || searches.Load() == 0 {
			t.Errorf("%d lines and %d searches, want 100 and some", n, searches.Load())
		}
		searches.Store(0)
		time.Sleep(time.Minute)
		if n := searches.Load(); n > 0 {
			t.Errorf("%d searches when all is known, want none", n)
		}
	})
}

// TestCondition holds condition.next to its table.
func TestCondition(t *testing.T) {
	t.Parallel()
	eio, enoent := error(syscall.EIO), error(syscall.ENOENT)
	for _, tt := range []struct {
		name     string
		was      condition
		err      error
		there    bool
		want     condition
		wantGone bool
	}{
		{"found", sure, nil, true, sure, false},
		{"missed once", sure, enoent, true, missing, false},
		{"missed twice", missing, enoent, true, sure, true},
		{"found again", missing, nil, true, sure, false},
		{"never there", sure, enoent, false, sure, false},
		{"parent is a file", sure, syscall.ENOTDIR, true, missing, false},
		{"fails", sure, eio, true, failing, false},
		{"fails at first", sure, eio, false, failing, false},
		{"fails after a miss", missing, eio, true, failing, false},
		{"missed after a failure", failing, enoent, true, missing, false},
		{"not there after a failure", failing, enoent, false, sure, false},
		{"readable again", failing, nil, true, sure, false},
		{"kept", sure, errKept, true, sure, false},
		{"kept after a miss", missing, errKept, true, missing, false},
		{"kept while failing", failing, errKept, true, failing, false},
	} {
		if got, gone := tt.was.next(tt.err, tt.there); got != tt.want || gone != tt.wantGone {
			t.Errorf("%s: got %v, gone %v, want %v, %v", tt.name, got, gone, tt.want, tt.wantGone)
		}
	}
}

// TestSame holds stamp.same to its table: what is changed in the second of two equal stamps.
func TestSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		change            func(*stamp)
		file, isDirectory bool // want, if it is one
	}{
		{"nothing", func(*stamp) {}, true, true},
		{"kind", func(s *stamp) { s.kind = other }, false, false},
		{"later second", func(s *stamp) { s.sec++ }, false, false},
		{"earlier second", func(s *stamp) { s.sec-- }, false, false},
		{"nanosecond", func(s *stamp) { s.nsec-- }, false, false},
		{"size", func(s *stamp) { s.size-- }, false, false},
		{"number alone", func(s *stamp) { s.ino++ }, true, false},
		{"ctime alone", func(s *stamp) { s.ctime++ }, true, false},
		{"number and ctime", func(s *stamp) { s.ino++; s.ctime-- }, false, false},
	} {
		for k, want := range map[kind]bool{file: tt.file, directory: tt.isDirectory} {
			a := stamp{sec: 5, nsec: 5, kind: k, size: 5, ino: 5, ctime: 5}
			b := a
			tt.change(&b)
			if got := a.same(&b); got != want {
				t.Errorf("%s of kind %d: got %v, want %v", tt.name, k, got, want)
			}
		}
	}
}

// TestResolved has targets in the root directory, and the root directory itself, with and without a link to it.
func TestResolved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ root, path, entry, want string }{
		{"/", "/", "/m/f", "/m/f"},
		{"/link", "/", "/link/m/f", "/m/f"},
		{"/link/", "/", "/link/m/f", "/m/f"},
		{"/d", "/d", "/d/m/f", "/d/m/f"},
		{"./", "/d", "./m/f", "/d/m/f"},
	} {
		p := quietPoller(configure(t, tt.root).pollConfig, tt.root)
		p.roots[0].site.guard.path = tt.path
		if got, err := p.resolved(&entry{path: tt.entry, parent: p.roots[0]}, tt.entry); got != tt.want || err != nil {
			t.Errorf("%+v: got %s and the error %v", tt, got, err)
		}
	}
}

// TestEmptyLink polls a target below a link that says nothing, and one that is such a link. A FUSE file system can have
// them, and reads as if nothing were there.
func TestEmptyLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("nowhere", dir+"/link"); err != nil {
		t.Skip(err)
	}
	for _, target := range []string{dir + "/link", dir + "/link/a"} {
		c := configure(t, "-open", target).pollConfig
		c.readlink = func(string) (string, error) { return "", nil }
		p := quietPoller(c, target)
		p.tree = false
		p.poll(t.Context())
		if p.roots[0].stamp.there() {
			t.Errorf("%s is there", target)
		}
	}
}

// TestDoubtOf holds doubtOf to its table, at a time in whole seconds.
func TestDoubtOf(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	known, none := stamp{kind: file, sec: 1, ctime: 1}, time.Duration(0)
	for _, tt := range []struct {
		name   string
		before stamp
		age    time.Duration // of the mtime
		ctime  int64
		kind   kind
		size   int64
		always bool
		want   time.Duration // for which the doubt lasts
	}{
		{"young, whole second", stamp{}, time.Second, 0, file, 1, false, wholeSecondGrain},
		{"a day off", stamp{}, clockSkew, 0, file, 1, false, wholeSecondGrain},
		{"a day ahead", stamp{}, -clockSkew, 0, file, 1, false, wholeSecondGrain},
		{"old", stamp{}, clockSkew + time.Minute, 0, file, 1, false, none},
		{"far ahead", stamp{}, -clockSkew - time.Minute, 0, file, 1, false, none},
		{"set by somebody", stamp{}, time.Hour, 1, file, 1, false, none},
		{"set again", known, time.Hour, 1, file, 1, false, wholeSecondGrain},
		{"young, fine clock", stamp{}, time.Millisecond, 1, file, 1, false, fineGrain},
		{"old, fine clock", stamp{}, 30 * time.Millisecond, 1, file, 1, false, none},
		{"largest", stamp{}, time.Second, 0, file, maxHashed, false, wholeSecondGrain},
		{"too large", stamp{}, time.Second, 0, file, maxHashed + 1, true, none},
		{"empty", stamp{}, time.Second, 0, file, 0, false, none},
		{"empty, with -content", stamp{}, time.Second, 0, file, 0, true, wholeSecondGrain},
		{"old, with -content", stamp{}, 1000 * time.Hour, 1, file, 1, true, fineGrain},
		{"directory", stamp{}, time.Second, 0, directory, 4096, false, wholeSecondGrain},
		{"old directory, with -content", stamp{}, 1000 * time.Hour, 0, directory, 4096, true, none},
		{"FIFO", stamp{}, time.Second, 0, other, 0, true, none},
	} {
		mtime := now.Add(-tt.age)
		st := stamp{sec: mtime.Unix(), nsec: int32(mtime.Nanosecond()), kind: tt.kind, size: tt.size, ctime: tt.ctime}
		d, got := doubtOf(tt.before, st, now, now, tt.always), none
		if d != nil {
			got = d.until.Sub(now)
		}
		if got != tt.want {
			t.Errorf("%s: got a doubt for %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestEnded holds entry.ended to its table: what subscribers know, and what is there.
func TestEnded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		told, now kind
		want      bool
	}{
		{gone, gone, false}, {gone, file, false}, {gone, directory, false},
		{file, gone, true}, {file, file, false}, {file, other, false}, {file, directory, true},
		{other, gone, true}, {other, file, false}, {other, directory, true},
		{directory, gone, true}, {directory, directory, false}, {directory, file, true}, {directory, other, true},
	} {
		e := &entry{stamp: stamp{kind: tt.now}, pending: &pending{told: stamp{kind: tt.told}}}
		if got := e.ended(); got != tt.want {
			t.Errorf("from %v to %v: got %v, want %v", tt.told, tt.now, got, tt.want)
		}
	}
}

// TestDoubt holds doubt.take to its table.
func TestDoubt(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		d    doubt
		hash uint64
		err  error
		want doubt
		says bool
	}{
		{"first", doubt{}, 5, nil, doubt{checked: true, hash: 5}, false},
		{"same", doubt{checked: true, hash: 5}, 5, nil, doubt{checked: true, hash: 5}, false},
		{"another", doubt{checked: true, hash: 5}, 6, nil, doubt{checked: true, hash: 6}, true},
		{"unreadable at first", doubt{}, 0, syscall.EIO, doubt{checked: true}, false},
		{"readable then", doubt{checked: true}, 6, nil, doubt{checked: true, hash: 6}, true},
		{"unreadable later", doubt{checked: true, hash: 5}, 0, syscall.EIO, doubt{checked: true, hash: 5}, false},
	} {
		if says := tt.d.take(tt.hash, tt.err); says != tt.says || tt.d != tt.want {
			t.Errorf("%s: got %v and %v, want %v and %v", tt.name, says, tt.d, tt.says, tt.want)
		}
	}
}

// TestGuard reads a table of mounts, and has guards follow each other.
func TestGuard(t *testing.T) {
	t.Parallel()
	table := &mountTable{counts: map[string]int{"/": 1, "/a": 1, "/a/b c": 2, "/ab": 1}, auto: []string{"/auto"}}
	for _, tt := range []struct {
		path, from string
		all        bool
		want       string
	}{
		{"/a/b c/d", "/a/b c/d", true, "[{/a/b c 2 false} {/a 1 false}]"},
		{"/a/b c/d", "/a/b c/d", false, "[]"},
		{"/a/b c", "/a/b c", false, "[{/a/b c 2 false}]"},
		{"/a", "/", true, "[]"}, // a file
		{"/abc/d", "/abc/d", true, "[]"},
		{"d", "d", true, "[]"}, // no working directory
	} {
		if got := table.guard(tt.path, tt.from, tt.all); got.path != tt.path || fmt.Sprint(got.points) != tt.want {
			t.Errorf("%s from %s: got %v, want %s", tt.path, tt.from, got, tt.want)
		}
	}
	for path, want := range map[string]bool{"/auto": true, "/auto/x": true, "/automatic": false, "/": false} {
		if got := table.triggered(path); got != want {
			t.Errorf("%s is mounted by autofs: got %v, want %v", path, got, want)
		}
	}
	one, two := guard{path: "/a", points: []mountCount{{path: "/a", count: 1}}}, guard{path: "/a", points: []mountCount{{path: "/a", count: 2}}}
	doubted, twice, believed, elsewhere, none := two, two, two, two, guard{path: "/a"}
	doubted.shortTables, twice.shortTables, believed.shortTables, elsewhere.path = 1, 2, maxHolds, "/b"
	for _, tt := range []struct {
		name         string
		g, next      guard
		found, quiet bool
		want         guard
	}{
		{"as before", two, two, true, false, two},
		{"one more", one, two, true, false, two},
		{"another mount", none, one, true, false, one},
		{"one less", two, one, true, true, doubted},
		{"one less, while mounts change", two, one, true, false, two},
		{"none, while mounts change", doubted, none, true, false, two},
		{"one less, twice", doubted, one, true, true, twice},
		{"one less, often", believed, one, true, true, one},
		{"somewhere else", elsewhere, none, true, false, none},
		{"nowhere", two, guard{}, false, true, two},
	} {
		if got := tt.g.heir(tt.next, tt.found, tt.quiet); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
