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
	for _, c := range commands {
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
	dir       string
	files     *os.Root
	mountinfo string        // the name of the file that is read in place of /proc/self/mountinfo
	grain     time.Duration // what mtimes are cut down to a multiple of
	ln        *pipeListener
	stop      context.CancelCauseFunc
	stopped   chan struct{}
	clients   []*client // in the order in which they joined
	out       strings.Builder
	log       *logText
	shown     int   // bytes of the log that have been printed
	touched   int64 // the latest ctime that touch has made

	mu      sync.Mutex
	failing map[string]error         // what looks at these paths meet
	delays  map[string]time.Duration // how long looks at these paths take
	disk    disk
}

// commands is the script language.
var commands = []struct {
	name, args, does string
	run              func(s *script, args []string) error
}{
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
	{"renumber", "path", "give path and all below it other inode numbers", (*script).renumber},
	{"ctime", "path", "give path and all below it other ctimes", (*script).ctime},
	{"cache", "", "answer looks from a cache of what is there now, as NFS does; opening refreshes it", (*script).cache},
	{"mount", "path type", "mount a file system at path, with all that is or was mounted there", (*script).mount},
	{"unmount", "path", "take that away, which leaves an empty directory", (*script).unmount},
	{"opened", "", "print what was opened since the last time", (*script).showOpened},
	{"log", "", "print what was logged since the last time", (*script).showLog},
	{"quit", "", "end the server and print the rest", (*script).quit},
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
	if s.stop != nil && s.Context().Err() == nil {
		s.quit(nil)
	}
	return s.out.String()[:before]
}

func newScript(t *testing.T, dir string, files *os.Root) *script {
	s := &script{T: t, dir: dir, files: files, grain: 1, mountinfo: dir + "-mountinfo", failing: map[string]error{}, delays: map[string]time.Duration{}}
	if err := s.writeMountinfo(); err != nil {
		t.Fatal(err)
	}
	s.disk.fields = findStatFields()
	s.disk.names, s.disk.nodes = map[string]*node{}, map[uint64]*node{}
	t.Cleanup(s.disk.release)
	return s
}

// do runs one line.
func (s *script) do(line string) error {
	words, err := split(line)
	if err != nil {
		return err
	}
	for _, c := range commands {
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
	c.dir = s.dir
	c.stat = func(name string) (os.FileInfo, error) { return s.look(name, os.Stat) }
	c.lstat = func(name string) (os.FileInfo, error) { return s.look(name, os.Lstat) }
	c.open = s.open
	var ctx context.Context
	ctx, s.stop = context.WithCancelCause(s.Context())
	s.Cleanup(func() {
		s.stop(nil)
		<-s.stopped
		time.Sleep(time.Hour) // pollers are not waited for, and time ends with the test
	})
	s.ln, s.log, s.stopped = launch(ctx, c)
	synctest.Wait()
	return nil
}

// look stats name by f, unless the script lets that fail.
func (s *script) look(name string, f func(string) (os.FileInfo, error)) (os.FileInfo, error) {
	s.mu.Lock()
	delay := s.delays[s.relative(name)]
	s.mu.Unlock()
	time.Sleep(delay)
	if err := s.failure(name); err != nil && err != syscall.EMFILE {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fi, err := s.disk.look(name, f)
	if err != nil || len(s.disk.masks)+len(s.disk.mounts) == 0 {
		return fi, err
	}
	return s.disk.disguise(s.relative(name), fi), nil
}

// open opens name, unless the script lets that fail.
func (s *script) open(name string) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "/proc/self/mountinfo" {
		return os.Open(s.mountinfo)
	}
	s.disk.opened = append(s.disk.opened, s.relative(name))
	if err := s.failing[s.failingAt(name)]; err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	s.disk.refresh(name)
	return os.OpenFile(name, os.O_RDONLY|nonblock, 0)
}

// relative returns the name as the script writes it.
func (s *script) relative(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, s.dir), "/")
}

// realDir returns the script's directory with links resolved, as in mountinfo.
func (s *script) realDir() string {
	dir, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		s.Error(err)
	}
	return dir
}

// failure returns the error that a look at name is to meet.
func (s *script) failure(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing[s.failingAt(name)]
}

// failingAt returns which of the failing paths name is, or is below.
func (s *script) failingAt(name string) string {
	name = s.relative(name)
	for failing := range s.failing {
		if name == failing || strings.HasPrefix(name, failing+"/") {
			return failing
		}
	}
	return name
}

func (s *script) poll([]string) error {
	time.Sleep(250 * time.Millisecond)
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

func (s *script) setGrain(args []string) (err error) {
	s.grain, err = time.ParseDuration(args[0])
	return err
}

func (s *script) rm(args []string) error {
	return errors.Join(s.files.RemoveAll(args[0]), s.stampDir(args[0]))
}

func (s *script) mv(args []string) error {
	return errors.Join(s.files.Rename(args[0], args[1]), s.stampDir(args[0]), s.stampDir(args[1]))
}

func (s *script) mkdir(args []string) error {
	return errors.Join(s.files.Mkdir(args[0], 0o777), s.stamp(args[0]))
}

func (s *script) link(args []string) error {
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

func (s *script) renumber(args []string) error {
	return s.disguiseAs(func(m *mask) { m.ino++ }, args[0])
}

func (s *script) ctime(args []string) error {
	return s.disguiseAs(func(m *mask) { m.ctime++ }, args[0])
}

// disguiseAs adds a mask for path and all below it.
func (s *script) disguiseAs(change func(*mask), path string) error {
	if findStatFields().ino == nil {
		s.Skip("files have no numbers here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := mask{path: path}
	change(&m)
	s.disk.masks = append(s.disk.masks, m)
	return nil
}

func (s *script) cache([]string) error {
	if findStatFields().ino == nil || !mayOpen {
		s.Skip("nothing is opened for fresh looks here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk.caching = true
	return filepath.WalkDir(s.dir+"/", func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			_, err = s.disk.lookUp(strings.TrimSuffix(path, "/"))
		}
		return err
	})
}

// Mounts are numbered, and the number is that of the device, too. What is unmounted is kept beside the
// directory of the script.
func (s *script) mount(args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if findStatFields().ino == nil {
		s.Skip("no mounts are known here")
	}
	path, aside := s.dir+"/"+args[0], s.aside(args[0])
	s.disk.mounts = append(s.disk.mounts, mountPoint{args[0], args[1], len(s.disk.mounts) + 1})
	if err := s.writeMountinfo(); err != nil {
		return err
	}
	if _, err := os.Stat(aside); err != nil {
		return nil // it was not mounted before
	}
	return s.keepTime(filepath.Dir(path), func() error { return errors.Join(os.RemoveAll(path), os.Rename(aside, path)) })
}

func (s *script) unmount(args []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.disk.mounts, func(m mountPoint) bool { return m.path == args[0] && m.kind != "" })
	if i < 0 {
		return errors.New("not mounted")
	}
	s.disk.mounts[i].kind = ""
	if err := s.writeMountinfo(); err != nil {
		return err
	}
	path, old := s.dir+"/"+args[0], time.Unix(1e8, 1)
	return s.keepTime(filepath.Dir(path), func() error {
		return errors.Join(os.Rename(path, s.aside(args[0])), os.Mkdir(path, 0o777), os.Chtimes(path, old, old))
	})
}

// aside returns where the content of the unmounted path is kept.
func (s *script) aside(path string) string {
	return s.dir + "-" + strings.ReplaceAll(path, "/", "%")
}

// keepTime calls f, which changes what is in dir, and sets the mtime of dir to what it was.
func (s *script) keepTime(dir string, f func() error) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return errors.Join(f(), os.Chtimes(dir, fi.ModTime(), fi.ModTime()))
}

// writeMountinfo writes what the program is to find in /proc/self/mountinfo, which it may hold open.
func (s *script) writeMountinfo() error {
	var text strings.Builder
	text.WriteString("1 0 0:255 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
	for _, m := range s.disk.mounts {
		if m.kind != "" {
			point := strings.NewReplacer(`\`, `\134`, " ", `\040`).Replace(filepath.Join(s.realDir(), m.path))
			fmt.Fprintf(&text, "%d 1 0:%d / %s rw,relatime - %s source rw\n", m.device+1, m.device, point, m.kind)
		}
	}
	return os.WriteFile(s.mountinfo, []byte(text.String()), 0o666)
}

func (s *script) showOpened([]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.disk.opened {
		s.out.WriteString("\t" + cmp.Or(name, "./") + "\n")
	}
	s.disk.opened = nil
	return nil
}

func (s *script) showLog([]string) error {
	logged := s.log.String()
	for line := range strings.Lines(strings.ReplaceAll(logged[s.shown:], s.realDir(), "DIR")) {
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

// A disk is what a script's files look like to the server: with other numbers, on other devices, or as a
// client of NFS remembers them.
type disk struct {
	fields  statFields
	masks   []mask
	mounts  []mountPoint // in the order of their devices, those that are not mounted any more among them
	opened  []string
	caching bool
	names   map[string]*node // where names led when that was last asked, nil if nowhere
	nodes   map[uint64]*node // by the real inode number
}

// A mask changes what is at or below a path.
type mask struct {
	path       string
	ino, ctime int
}

// A mountPoint is a file system that is, or if its kind is empty was, mounted at a path.
type mountPoint struct {
	path, kind string
	device     int
}

// A node is a file as it was when its attributes were last asked. It is held open, so that no other file
// gets its number.
type node struct {
	fi   os.FileInfo
	held *os.File
}

// below reports whether name is path or below it.
func below(path, name string) bool {
	return path == "." || name == path || strings.HasPrefix(name, path+"/")
}

// A disguised FileInfo has another Sys.
type disguised struct {
	os.FileInfo
	sys any
}

func (d disguised) Sys() any { return d.sys }

// disguise returns fi as the masks and mounts want it.
func (d *disk) disguise(name string, fi os.FileInfo) os.FileInfo {
	sys, fields := reflect.ValueOf(fi.Sys()), d.fields
	changed := reflect.New(sys.Elem().Type())
	changed.Elem().Set(sys.Elem())
	ino := changed.Elem().FieldByIndex(fields.ino)
	sec := changed.Elem().FieldByIndex(fields.ctime).Field(0)
	for _, m := range d.masks {
		if below(m.path, name) {
			ino.SetUint(ino.Uint() + uint64(m.ino)<<24)
			sec.SetInt(sec.Int() + int64(m.ctime))
		}
	}
	for _, m := range d.mounts {
		if dev := changed.Elem().FieldByIndex(fields.dev); m.kind == "" || !below(m.path, name) {
			continue
		} else if dev.CanInt() {
			dev.SetInt(int64(m.device))
		} else {
			dev.SetUint(uint64(m.device))
		}
	}
	return disguised{fi, changed.Interface()}
}

// look stats name by f, or remembers what came of that. Symbolic links are not remembered, nor is d/. looked
// up in the cache, which is there to be searched only.
func (d *disk) look(name string, f func(string) (os.FileInfo, error)) (os.FileInfo, error) {
	fi, err := os.Lstat(name)
	if !d.caching || strings.HasSuffix(name, "/.") || err == nil && fi.Mode()&os.ModeSymlink != 0 {
		return f(name)
	}
	name = strings.TrimSuffix(name, "/")
	n, known := d.names[name]
	if !known {
		if n, err = d.lookUp(name); err != nil {
			return nil, err
		}
	}
	if n == nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: syscall.ENOENT}
	}
	return n.fi, nil
}

// lookUp asks where name leads now.
func (d *disk) lookUp(name string) (*node, error) {
	fi, err := os.Lstat(name)
	if err != nil && !absent(err) {
		return nil, err
	}
	var n *node
	if err == nil {
		st, _ := d.fields.stamp(fi)
		ino := st.ino
		if n = d.nodes[ino]; n == nil {
			n = &node{fi: fi}
			n.held, _ = os.OpenFile(name, os.O_RDONLY|nonblock, 0)
			d.nodes[ino] = n
		}
	}
	if d.names[name] != n {
		maps.DeleteFunc(d.names, func(other string, _ *node) bool { return strings.HasPrefix(other, name+"/") })
	}
	d.names[name] = n
	return n, nil
}

// refresh takes note that name is opened: a directory, by its name with a separator, for itself and the
// names in it, or a file for itself.
func (d *disk) refresh(name string) {
	path := strings.TrimSuffix(name, "/")
	fi, err := os.Stat(path)
	switch {
	case !d.caching:
		return
	case absent(err) && path != name:
		d.lookUp(path)
		return
	case err != nil || fi.IsDir() == (path == name):
		return
	}
	if st, _ := d.fields.stamp(fi); d.nodes[st.ino] != nil {
		d.nodes[st.ino].fi = fi
	}
	if !fi.IsDir() {
		return
	}
	for _, other := range slices.Collect(maps.Keys(d.names)) {
		if other == path || filepath.Dir(other) == path {
			d.lookUp(other)
		}
	}
}

// age has the cache forget all that was asked, as it does in time.
func (s *script) age() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk.release()
	clear(s.disk.names)
	clear(s.disk.nodes)
}

func (d *disk) release() {
	for _, n := range d.nodes {
		n.held.Close()
	}
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
	seed = flag.Uint64("seed", 0, "seed of TestProperty, 0 for new ones")
	ops  = flag.Int("ops", 2_000, "operations in TestProperty")
)

// TestProperty holds the program to its promise: once files keep still, every
// subscriber that reads to the end knows exactly the paths that exist, and heard
// of each after its last change.
func TestProperty(t *testing.T) {
	t.Parallel()
	const lifetime = 500
	for done := 0; done < *ops && !t.Failed(); done += lifetime {
		s := *seed
		if s == 0 {
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
		os.RemoveAll(dir) // a million operations leave many files
	}
}

// A world is a tree of files to which things happen at random, and some who
// listen. Things happen half a millisecond after polls do, so that the time in a
// line tells what it is about.
type world struct {
	*script
	rand      *rand.Rand
	began     time.Time
	did       []string // for when it fails
	list      bool     // the server runs with -list
	fast      *listener
	slow      *listener
	suspended *listener
	others    []*listener // who join and leave at random
	joined    int
	states    map[string]string    // of all files that ever were, when they were last there
	changed   map[string]time.Time // when they came to be that
}

// A listener believes what it hears.
type listener struct {
	*client
	strict bool                 // it reads at once, so that it misses nothing in between
	known  map[string]time.Time // what it takes to be there, and when it last heard of it
}

func newWorld(t *testing.T, seed uint64, dir string) *world {
	files, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { files.Close() })
	s := newScript(t, dir, files)
	w := &world{script: s, rand: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), states: map[string]string{}, changed: map[string]time.Time{}}
	s.grain = pick(w, 1, 10*time.Millisecond, time.Second, 2*time.Second)
	w.must(s.mkdir([]string{"src"}))
	flags := pick(w, "", "", "-settle 30ms ", "-content ", "-open ")
	if w.list = pick(w, true, false); w.list {
		flags += "-list "
	}
	if pick(w, true, false) { // what was looked up then is what is there until something is opened
		w.must(errors.Join(s.do("mount . nfs"), s.do("cache")))
	}
	w.must(s.do("watch -interval 7ms " + flags + "src"))
	known := map[string]time.Time{"src/": {}}
	w.fast, w.slow, w.suspended = w.join("fast", known), w.join("slow", known), w.join("suspended", known)
	w.must(w.fast.hear())
	return w
}

func pick[T any](w *world, from ...T) T { return from[w.rand.IntN(len(from))] }

// must fails the test, and tells what has been done.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%v\nafter\n%s", err, strings.Join(w.did, "\n"))
	}
}

// join adds a listener who knows what is known to another one or, if there is a list, nothing yet.
func (w *world) join(name string, known map[string]time.Time) *listener {
	if w.list {
		known = nil
	}
	l := &listener{client: w.ln.dial(name), strict: name == "fast", known: map[string]time.Time{}}
	maps.Copy(l.known, known)
	w.clients = append(w.clients, l.client)
	synctest.Wait()
	return l
}

// live lets n things happen, and then checks what the listeners know.
func (w *world) live(n int) {
	time.Sleep(500 * time.Microsecond)
	for i := range n {
		w.operate()
		if w.rand.IntN(3) > 0 {
			continue
		}
		w.pass(pick[time.Duration](w, 7, 7, 7, 14, 14, 28, 70, pick[time.Duration](w, 70, 70, 70, 3500)) * time.Millisecond)
		if i%20 == 0 {
			w.must(w.slow.hear())
		}
		if i%50 == 0 {
			w.must(w.leave([]string{"slow"}))
			w.slow = w.join("slow", w.fast.known)
		}
		w.comeAndGo()
	}
	w.must(w.heal(nil))
	w.age()
	w.pass(4 * time.Second)
	for _, l := range append(w.others, w.fast, w.slow, w.suspended) {
		w.must(l.hear())
		w.must(w.compare(l))
	}
	w.must(w.quit(nil))
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
			w.must(l.hear())
			if !slices.Equal(slices.Sorted(maps.Keys(l.known)), slices.Sorted(maps.Keys(w.fast.known))) {
				w.must(fmt.Errorf("%s joined and knows %v, want %v", l.name, l.known, w.fast.known))
			}
		}
	case "read":
		if n > 0 {
			w.must(pick(w, w.others...).hear())
		}
	case "leave":
		if n > 0 {
			l := w.others[w.rand.IntN(n)]
			w.must(w.leave([]string{l.name}))
			w.others = slices.DeleteFunc(w.others, func(other *listener) bool { return other == l })
		}
	}
}

// pass lets time go by, in which at least one poll looks at what has happened.
func (w *world) pass(d time.Duration) {
	for path, state := range w.look() {
		if w.failure(path) == nil && state != "directory" && state != "unknown" && w.states[path] != state {
			w.states[path], w.changed[path] = state, time.Now()
		}
	}
	for ; d > 0; d -= 7 * time.Millisecond {
		time.Sleep(7 * time.Millisecond)
		synctest.Wait()
		w.must(w.fast.hear())
	}
}

// operate does something to the tree. What cannot be done to what is there is
// as if it had not been tried.
func (w *world) operate() {
	a, b, n := w.anyPath(), w.anyPath(), strconv.Itoa(1000+len(w.did))
	op := pick(w, "write "+a+" "+n, "write "+a+" "+n+n, "write "+b+" "+n, "append "+a+" "+n, "touch "+a+" -"+n+"h",
		"mv "+a+" "+b, "mv "+b+" "+a, "mkdir "+a, "mkdir "+b, "rm "+a, "symlink "+filepath.Base(b)+" "+a, "ln "+a+" "+b,
		"chmod 755 "+a, "fail "+a+" EIO", "heal", "heal", "renumber "+a, "age")
	if op == "age" {
		w.age()
		return
	}
	if err := w.do(op); err == nil && op != "heal" {
		w.did = append(w.did, fmt.Sprint(time.Since(w.began), " ", op))
	}
}

func (w *world) anyPath() string {
	var path strings.Builder
	path.WriteString("src")
	for range pick(w, 1, 1, 2, 2, 3, pick(w, 0, 3)) {
		path.WriteString(pick(w, "/a", "/b", "/c"))
	}
	return path.String()
}

// look returns what is on disk: a state for every path as the protocol shows it.
func (w *world) look() map[string]string {
	found := map[string]string{}
	filepath.WalkDir(w.dir+"/src", func(path string, d os.DirEntry, _ error) error {
		name := strings.TrimPrefix(path, w.dir+"/")
		fi, err := os.Stat(path)
		switch {
		case absent(err): // a link to nothing
		case err != nil:
			found[name] = "unknown" // a link to itself
		case d.IsDir():
			found[name+"/"] = "directory"
		case fi.IsDir():
			found[name] = "directory" // behind a link
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
		if found[path] == "" && !loops(found, path) {
			return fmt.Errorf("%s knows of %s, which is not there", l.name, path)
		}
	}
	for path, state := range found {
		heard, known := l.known[path]
		if state == "unknown" {
			continue
		}
		if !known {
			return fmt.Errorf("%s does not know of %s", l.name, path)
		}
		if heard.Before(w.changed[path]) && !w.changed[path].IsZero() {
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

// hear takes in what l is sent, each line of which must fit what it knows.
func (l *listener) hear() error {
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
		case verb == "created" && (known && l.strict || !parentKnown && parent != "./"),
			verb == "changed" && !known,
			verb == "removed" && (!known && l.strict || holds):
			return fmt.Errorf("%s heard %s and knows %v", l.name, line, l.known)
		case verb == "created" || verb == "changed":
			l.known[path] = when
		case verb == "removed":
			delete(l.known, path)
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

// TestHungStat has a stat that never returns from the start: it silences what
// lives in its directory, and delays nobody else for more than a moment.
func TestHungStat(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "hung/a", "tree/b", "c")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/hung/a", dir+"/tree", dir+"/c")
		release := make(chan struct{})
		c.stat = func(name string) (os.FileInfo, error) {
			if name == dir+"/hung/a" {
				<-release
			}
			return os.Stat(name)
		}
		ln, logged := begin(t, c)
		time.Sleep(3 * patience)
		if got, want := logged.String(), fmt.Sprintf("%[1]s/hung/a: no answer; waiting for it\nwatching %[1]s/tree/ (2 entries)\nwatching %[1]s/c\nlistening on pipe\n", dir); got != want {
			t.Errorf("logged %q, want %q", got, want)
		}
		j := ln.dial("j")
		got := verbs(j.drain())
		writeFiles(t, dir, "tree/d")
		os.Remove(dir + "/c")
		time.Sleep(time.Second)
		got += verbs(j.drain())
		close(release)
		time.Sleep(time.Second)
		got += verbs(j.drain())
		want := strings.ReplaceAll("waiting hung/a\nwatching tree/\nwatching c\ncreated tree/d\nremoved c\ncreated hung/a\n", " ", " "+dir+"/")
		if got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	})
}

// TestHungTree has a tree hang beside a file: each has a poller of its own.
func TestHungTree(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, "tree/b", "c")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree", dir+"/c")
		release := make(chan struct{})
		t.Cleanup(func() { close(release) })
		var hung atomic.Bool
		c.lstat = func(name string) (os.FileInfo, error) {
			if hung.Load() {
				<-release
			}
			return os.Lstat(name)
		}
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		hung.Store(true)
		os.Remove(dir + "/c")
		time.Sleep(time.Second)
		if got, want := verbs(j.drain()), "removed "+dir+"/c\n"; got != want {
			t.Errorf("sent %q, want %q", got, want)
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
		var want strings.Builder
		for _, n := range []int{33, 161, 225, 353, 449, 545} {
			fmt.Fprintf(&want, "reading %s/tree/: %d entries so far\n", dir, n)
		}
		fmt.Fprintf(&want, "watching %s/tree/ (601 entries)\nlistening on pipe\n", dir)
		if got := logged.String(); got != want.String() {
			t.Errorf("logged %q, want %q", got, &want)
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

// TestIgnoredCase renames a file on a mount that finds it by its old name too, and unchanged: what the directory
// lists is what is there, and the old name is forgotten.
func TestIgnoredCase(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, "tree/name")
	before, err := os.Lstat(dir + "/tree/name")
	if err != nil {
		t.Fatal(err)
	}
	mountinfo := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(mountinfo, []byte("1 0 0:254 / "+dir+"/tree rw - vfat x rw\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		c.lstat = func(name string) (os.FileInfo, error) {
			fi, err := os.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) && name == dir+"/tree/name" {
				return before, nil
			}
			return fi, err
		}
		var reads atomic.Int64
		c.open = func(name string) (*os.File, error) {
			reads.Add(1)
			return openMountinfo(mountinfo)(name)
		}
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		if err := os.Rename(dir+"/tree/name", dir+"/tree/NAME"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, want := verbs(j.drain()), fmt.Sprintf("created %[1]s/tree/NAME\nremoved %[1]s/tree/name\n", dir); got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
		reads.Store(0)
		time.Sleep(4 * rereadEvery * c.interval)
		if n := reads.Load(); n > 5 {
			t.Errorf("read the directory %d times in %d polls", n, 4*rereadEvery)
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
	p := g.newPoller(dir, []*entry{{path: dir, place: &place{}}}, true, 0)
	for range 3 {
		p.poll(t.Context())
	}
	if want := []string{withSeparator(dir)}; !slices.Equal(paths, want) {
		t.Errorf("reported %q, want %q", paths, want)
	}
	if n := len(p.roots[0].place.entries); n > 0 {
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
	for _, e := range p.roots[0].place.entries {
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
	if left := len(p.roots[0].place.entries); left != 1 {
		t.Errorf("%d entries are left, want 1", left)
	}
	os.RemoveAll(dir + "/tree")
	for range 4 {
		p.poll(t.Context())
	}
	if left := len(p.roots[0].place.entries); left != 0 {
		t.Errorf("%d entries are left of a tree that is gone, want none", left)
	}
	runtime.KeepAlive(p)
}

// TestHang has calls hang when the server has long begun. The log says so once, and once when that is over.
func TestHang(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFiles(t, dir, "tree/a")
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		var hung atomic.Bool
		release := make(chan struct{})
		c.lstat = func(name string) (os.FileInfo, error) {
			if hung.Load() {
				<-release
			}
			return os.Lstat(name)
		}
		_, logged := begin(t, c)
		time.Sleep(time.Minute)
		before := logged.String()
		said := func(want string) {
			t.Helper()
			if got := strings.TrimPrefix(logged.String(), before); got != want {
				t.Errorf("logged %q, want %q", got, want)
			}
		}
		hung.Store(true)
		time.Sleep(patience / 2)
		said("")
		time.Sleep(time.Hour)
		said(dir + "/tree/: no answer; keeping its last state\n")
		hung.Store(false)
		close(release)
		time.Sleep(time.Hour)
		said(dir + "/tree/: no answer; keeping its last state\n" + dir + "/tree/: answers again\n")
	})
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
	e := &entry{path: path}
	e.stamp, _ = p.fields.stamp(fi)
	_, err = p.hash(e)
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
	return g.newPoller(dir, []*entry{{path: dir, place: &place{}}}, true, 0)
}

// identity returns what tells a file from another one of the same content.
func identity(fi os.FileInfo) uint64 {
	st, _ := findStatFields().stamp(fi)
	return st.ino
}

// TestMountLostInPoll takes a mount away while a poll looks at what is on it, so that the poll sees the files
// below the mount point. They are not the files of the mount, which may be back before the poll ends.
func TestMountLostInPoll(t *testing.T) {
	for _, tt := range []struct {
		name    string
		targets []string
		back    bool
	}{
		{"tree", []string{"/tree"}, false},
		{"tree that is back", []string{"/tree"}, true},
		{"files", []string{"/tree/a", "/tree/b"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) { testMountLostInPoll(t, tt.targets, tt.back) })
	}
}

func testMountLostInPoll(t *testing.T, targets []string, back bool) {
	m := newFakeMount(t)
	synctest.Test(t, func(t *testing.T) {
		var args []string
		for _, target := range targets {
			args = append(args, m.dir+target)
		}
		c := configure(t, args...)
		var takeAway atomic.Bool
		stat := func(name string) (os.FileInfo, error) {
			if name == m.dir+"/tree/a" && takeAway.Swap(false) {
				m.mount(t, false)
			}
			fi, err := m.stat(name)
			if back && name == m.dir+"/tree/b" && m.away.Load() {
				m.mount(t, true)
			}
			return fi, err
		}
		c.stat, c.lstat = stat, stat // there are no links
		c.open = openMountinfo(m.info)
		ln, logged := begin(t, c)
		j := ln.dial("j")
		j.drain()
		takeAway.Store(true)
		time.Sleep(time.Second)
		m.mount(t, true)
		time.Sleep(time.Second)
		lines := 1
		if back {
			lines = 0
		}
		if got := j.drain(); got != "" || strings.Count(logged.String(), "not mounted") != lines {
			t.Errorf("sent %q, and logged\n%swant nothing sent, and %d lines that it is not mounted", got, logged, lines)
		}
		mtime := time.Unix(3e8, 1)
		if err := errors.Join(os.Chtimes(m.dir+"/tree/a", mtime, mtime), os.Chtimes(m.dir+"/tree/b", mtime, mtime)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, want := verbs(j.drain()), fmt.Sprintf("changed %[1]s/tree/a\nchanged %[1]s/tree/b\n", m.dir); got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	})
}

// TestShortLivedOnMount has a file come and go in each poll, as the first difference of a tree on a mount. It does not
// keep what else differs from being told.
func TestShortLivedOnMount(t *testing.T) {
	m := newFakeMount(t)
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, m.dir+"/tree")
		stat := func(name string) (os.FileInfo, error) {
			fi, err := m.stat(name)
			if name == m.dir+"/tree/b" {
				os.Remove(m.dir + "/tree/.tmp")
			}
			return fi, err
		}
		c.stat, c.lstat = stat, stat
		c.open = openMountinfo(m.info)
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		writeFiles(t, m.dir, "tree/.tmp")
		mtime := time.Unix(3e8, 1)
		if err := os.Chtimes(m.dir+"/tree/a", mtime, mtime); err != nil {
			t.Fatal(err)
		}
		time.Sleep(c.interval + c.interval/2)
		if got, want := verbs(j.drain()), fmt.Sprintf("changed %s/tree/a\n", m.dir); !strings.Contains(got, want) {
			t.Errorf("sent %q, want %q in it", got, want)
		}
	})
}

// A fakeMount is a file system that is mounted at dir/tree, as far as a poller can know. What lies below the mount
// point is in dir/below.
type fakeMount struct {
	dir, info string // info is what /proc/self/mountinfo is to be
	away      atomic.Bool
}

func newFakeMount(t *testing.T) *fakeMount {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMount{dir: dir, info: filepath.Join(t.TempDir(), "mountinfo")}
	for _, name := range []string{"tree/a", "tree/b", "below/a", "below/b"} {
		writeFiles(t, dir, name)
		mtime := time.Unix(1e8, int64(len(name))) // not the same below
		if err := os.Chtimes(dir+"/"+name, mtime, mtime); err != nil {
			t.Fatal(err)
		}
	}
	m.mount(t, true)
	return m
}

// mount mounts the file system, or unmounts it. At no moment is it mounted while a stat finds what lies below.
func (m *fakeMount) mount(t *testing.T, there bool) {
	text := "1 0 0:255 / / rw - ext4 x rw\n"
	if there {
		m.away.Store(false)
		text += "2 1 0:254 / " + m.dir + "/tree rw - ext4 x rw\n"
	}
	if err := os.WriteFile(m.info, []byte(text), 0o666); err != nil {
		t.Error(err)
	}
	m.away.Store(!there)
}

func (m *fakeMount) stat(name string) (os.FileInfo, error) {
	if m.away.Load() {
		name = strings.Replace(name, m.dir+"/tree", m.dir+"/below", 1)
	}
	return os.Stat(name)
}

// openMountinfo returns an open that finds another file in place of the system's mountinfo.
func openMountinfo(mountinfo string) func(string) (*os.File, error) {
	return func(name string) (*os.File, error) {
		if name == "/proc/self/mountinfo" {
			name = mountinfo
		}
		return os.Open(name)
	}
}

// TestMountBackInPoll has a stat of a target see what lies below its mount point. By the time that the poll
// asks for the mount, it is there again.
func TestMountBackInPoll(t *testing.T) {
	m := newFakeMount(t)
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, m.dir+"/tree/a")
		c.stat = func(name string) (os.FileInfo, error) {
			defer m.away.Store(false)
			return m.stat(name)
		}
		c.open = openMountinfo(m.info)
		ln, _ := begin(t, c)
		j := ln.dial("j")
		j.drain()
		m.away.Store(true)
		time.Sleep(time.Second)
		if got := j.drain(); got != "" || m.away.Load() {
			t.Errorf("sent %q, want nothing", got)
		}
	})
}

// TestMountShortlyBack has a mount that was gone come back, go once more while a poll looks at the second target, and
// be there again at its end. What that poll saw of the second target lies below the mount point.
func TestMountShortlyBack(t *testing.T) {
	m := newFakeMount(t)
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, m.dir+"/tree/a", m.dir+"/tree/b")
		var looks atomic.Int64 // at the second target before the mount is there again, 0 if it is there
		c.stat = func(name string) (os.FileInfo, error) {
			time.Sleep(time.Millisecond)
			if looks.Load() == 0 || !strings.HasSuffix(name, "/b") {
				return m.stat(name)
			}
			time.Sleep(time.Millisecond) // so that the first target has been looked at
			m.mount(t, false)
			fi, err := m.stat(name)
			m.mount(t, looks.Add(-1) == 0)
			return fi, err
		}
		c.open = openMountinfo(m.info)
		ln, logged := begin(t, c)
		j := ln.dial("j")
		time.Sleep(time.Second)
		j.drain()
		for n := range 3 {
			m.mount(t, false)
			time.Sleep(time.Second)
			m.mount(t, true)
			looks.Store(int64(n))
			time.Sleep(time.Second)
			looks.Store(0)
			m.mount(t, true)
			time.Sleep(time.Second)
			if got := j.drain(); got != "" {
				t.Errorf("sent %q, want nothing; logged\n%s", got, logged)
			}
		}
	})
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

// TestUnsearchable has a directory that can be listed, but not searched. The log has one line for it, and not one
// for each file in it, and it goes on from there.
func TestUnsearchable(t *testing.T) {
	dir := t.TempDir()
	for i := range 100 {
		writeFiles(t, dir, fmt.Sprintf("tree/d/%d", i))
	}
	synctest.Test(t, func(t *testing.T) {
		c := configure(t, dir+"/tree")
		var fails atomic.Bool
		c.lstat = func(name string) (os.FileInfo, error) {
			if fails.Load() && strings.HasPrefix(name, dir+"/tree/d/") {
				return nil, syscall.EACCES
			}
			return os.Lstat(name)
		}
		ln, logged := begin(t, c)
		j := ln.dial("j")
		j.drain()
		before := logged.String()
		fails.Store(true)
		time.Sleep(time.Minute)
		fails.Store(false)
		os.Remove(dir + "/tree/d/7")
		time.Sleep(time.Minute)
		got := strings.TrimPrefix(logged.String(), before)
		if want := fmt.Sprintf("%[1]s/tree/d/: permission denied; keeping its last state\n%[1]s/tree/d/: readable again\n", dir); got != want {
			t.Errorf("logged %q, want %q", got, want)
		}
		if got, want := verbs(j.drain()), "removed "+dir+"/tree/d/7\n"; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	})
}

// TestLateTreeHangs has a target come later, as a directory in which every look hangs. That is said,
// though it is the first poll of that tree.
func TestLateTreeHangs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := configure(t, dir+"/tree")
		c.lstat = func(name string) (os.FileInfo, error) {
			<-release
			return os.Lstat(name)
		}
		_, logged := begin(t, c)
		time.Sleep(time.Minute)
		before := logged.String()
		writeFiles(t, dir, "tree/x")
		time.Sleep(time.Minute)
		close(release)
		time.Sleep(time.Minute)
		got := strings.TrimPrefix(logged.String(), before)
		if want := fmt.Sprintf("%[1]s/tree/: no answer; keeping its last state\n%[1]s/tree/: answers again\n", dir); got != want {
			t.Errorf("logged %q, want %q", got, want)
		}
	})
}
