package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A pollConfig is the flags that pollers need, and the calls that reach the file system, which tests replace.
type pollConfig struct {
	interval, settle time.Duration
	content, openAll bool
	list             bool // what is below a target is reported at first, too
	patterns         patterns
	dir              string // what relative targets are relative to, "" for the working directory

	stat, lstat func(string) (os.FileInfo, error)
	open        func(string) (*os.File, error)
}

// A polling is all pollers of a server and what they share.
type polling struct {
	pollConfig
	targets []string // as typed
	logger  *log.Logger
	report  func([]change) // takes the changes of one poll; several pollers call it at a time
	seed    maphash.Seed
	fields  statFields
	mounts  mounts
	madeUp  *regexp.Regexp // names that NFS and FUSE clients give to a file that was deleted while open
	started chan *poller   // for supervise, never full
	firsts  chan *place    // of targets that have been polled once; the same
}

func newPolling(targets []string, c pollConfig, logger *log.Logger, report func([]change)) *polling {
	return &polling{
		pollConfig: c, targets: targets, logger: logger, report: report,
		seed: maphash.MakeSeed(), fields: findStatFields(),
		started: make(chan *poller, 2*len(targets)), firsts: make(chan *place, len(targets)),
		mounts: mounts{lost: map[string]bool{}},
		madeUp: regexp.MustCompile(`^(\.nfs[[:xdigit:]]{24}|\.fuse_hidden[[:xdigit:]]{16})$`),
	}
}

// start starts to poll the targets, until ctx is done. File targets of one directory share a poller: if a
// stat of one hangs, so would those of the others. It does not wait for an end of pollers, which may hang.
func (g *polling) start(ctx context.Context) {
	byDir := map[string][]*entry{}
	for i, name := range g.targets {
		path := absolute(g.dir, name)
		dir := parentOf(path)
		byDir[dir] = append(byDir[dir], &entry{path: path, place: &place{target: int32(i), unknown: true}})
	}
	for dir, roots := range byDir {
		if len(roots) == 1 {
			dir = g.targets[roots[0].place.target]
		}
		go g.newPoller(dir, roots, false, 0).run(ctx)
	}
}

// newPoller returns a poller that supervise knows. polls is how often another one has polled the roots before.
func (g *polling) newPoller(label string, roots []*entry, tree bool, polls uint64) *poller {
	p := &poller{polling: g, label: label, roots: roots, tree: tree, heardAt: time.Now()}
	p.polls.Store(polls)
	g.started <- p
	return p
}

const (
	patience   = 10 * time.Second // without an answer before that is said; a disk takes several to spin up
	checkEvery = time.Second      // and every other time a first poll says how far it is
)

// supervise calls begin when every target has been polled, or when the polls of the others stand still for the
// time of patience. From then on it logs which polls get no answer, until ctx is done.
func (g *polling) supervise(ctx context.Context, begin func()) {
	tick := time.Tick(checkEvery)
	lines, begun, moves := make([]string, len(g.targets)), false, true
	var pollers []*poller
	for ticks := 1; ; {
		select {
		case p := <-g.started:
			pollers, moves = append(pollers, p), true
		case first := <-g.firsts:
			lines[first.target] = first.line
			if begun {
				g.logger.Print(first.line)
			}
		case now := <-tick:
			moves = g.check(pollers, now, ticks%2 == 0)
			ticks++
		case <-ctx.Done():
			return
		}
		if !begun && ctx.Err() == nil && (!slices.Contains(lines, "") || !moves && len(g.firsts)+len(g.started) == 0) {
			begun = true
			for i, line := range lines {
				g.logger.Print(cmp.Or(line, quote(g.targets[i])+": no answer; waiting for it"))
			}
			begin()
		}
	}
}

// check logs how far first polls are, if asked for progress, which later polls get no answer, and which do
// again. It reports whether a first poll moves.
func (g *polling) check(pollers []*poller, now time.Time, progress bool) (moves bool) {
	for _, p := range pollers {
		first := p.polls.Load() == 0
		if p.answers.Swap(0) > 0 || !p.asking.Load() {
			p.heardAt = now
		}
		still := now.Sub(p.heardAt)
		switch {
		case first && still < patience:
			moves = true
			if progress && still == 0 {
				g.logger.Printf("reading %s: %d entries so far", quote(p.label), p.seen.Load())
			}
		case !first && still >= patience && !p.silent:
			p.silent = true
			g.logger.Printf("%s: no answer; keeping its last state", quote(p.label))
		case still == 0 && p.silent:
			p.silent = false
			g.logger.Printf("%s: answers again", quote(p.label))
		}
	}
	return moves
}

// A poller polls targets again and again: file targets of one directory, or one tree. One goroutine runs it
// and owns its entries. While calls are slow, it has helpers, and each owns the entries that it visits.
type poller struct {
	*polling
	label string   // what the log calls it
	roots []*entry // the targets
	tree  bool     // there is one, which is or was a directory

	// Of the current poll.
	now     time.Time
	helpers atomic.Int32 // goroutines that visit entries, beside the poller's own
	slowFor atomic.Int64 // while it is above 0, calls count as slow

	judging   sync.Mutex // guards places while entries in them are judged, and
	differing []*entry   // those whose difference has not been reported

	// The polling reads these while a call hangs.
	polls   atomic.Uint64 // of its targets, that are over
	asking  atomic.Bool   // a poll is under way
	answers atomic.Uint64 // how many calls have returned since supervise last looked
	seen    atomic.Uint64 // entries that are there, of those that this poll has looked at

	// The polling's own notes.
	heardAt time.Time // when there was an answer, no poll was under way, or the poller was new
	silent  bool      // the log says that there is no answer
}

// run polls until ctx is done, with the interval as a pause after each poll.
func (p *poller) run(ctx context.Context) {
	for len(p.roots) > 0 && ctx.Err() == nil {
		p.asking.Store(true)
		p.poll(ctx)
		p.asking.Store(false)
		wait(ctx, p.interval)
	}
}

// poll looks at the targets and at all that is below them, and reports what is different.
func (p *poller) poll(ctx context.Context) {
	p.now, p.differing = time.Now(), nil
	p.seen.Store(0)
	first := p.polls.Load() == 0
	if !first {
		p.openParent()
	}
	p.visitAll(p.roots, nil)
	if first && p.openParent() { // or a stale first look would show as a change later
		p.differing = nil
		p.visitAll(p.roots, nil)
	}
	p.split(ctx)
	p.undo()
	p.tell(slices.DeleteFunc(p.differing, func(e *entry) bool { return !p.settled(e) }))
	p.answered()
}

const (
	slowCall    = 100 * time.Microsecond // a call that takes so long waits for something other than this machine
	maxHelpers  = 31                     // 32 such calls at a time take no longer than one
	sampleEvery = 8                      // of so many fast calls, the time of one is taken
	slowSpell   = 128                    // so many fast calls after a slow one end the help
)

// visitAll visits each of es. While calls are slow, helpers do so too, as long as p has fewer than maxHelpers. Each
// takes the next entry when it has visited one, so that none idles while another one waits for a call.
func (p *poller) visitAll(es []*entry, above error) {
	var begun atomic.Int64
	var helped sync.WaitGroup
	var work func(all bool)
	work = func(all bool) {
		for all || p.slowFor.Load() > 0 {
			n := int(begun.Add(1))
			if n > len(es) {
				return
			}
			h := p.helpers.Load()
			if h < maxHelpers && p.slowFor.Load() > 0 && p.helpers.CompareAndSwap(h, h+1) {
				helped.Go(func() {
					work(false)
					p.helpers.Add(-1)
				})
			}
			p.visit(es[n-1], above)
		}
	}
	work(true)
	helped.Wait()
}

// visit looks at e, judges it, and visits what is in it. If above is not nil, it is the result of the look.
func (p *poller) visit(e *entry, above error) {
	err := above
	if err == nil {
		err = p.look(e)
	}
	if e.stamp.kind == directory && !p.tree {
		return // split gives it a poller of its own
	}
	below := p.judge(e, err)
	if e.place == nil {
		return
	}
	e.place.entries = slices.DeleteFunc(e.place.entries, func(c *entry) bool {
		listed := e.stamp.kind == directory && !c.unlisted // a link to nothing is listed, but not there
		return !listed && !c.stamp.there() && c.pending == nil
	})
	p.visitAll(e.place.entries, below)
}

// split gives each target that turns out to be a directory its own poller, because a tree can delay its neighbours.
func (p *poller) split(ctx context.Context) {
	p.roots = slices.DeleteFunc(p.roots, func(e *entry) bool {
		if p.tree || e.stamp.kind != directory {
			return false
		}
		go p.newPoller(p.shown(e, directory), []*entry{e}, true, p.polls.Load()).run(ctx)
		return true
	})
}

const rereadEvery = 16 // polls, about: some file systems do not keep the times of directories

// look stats e, and reads the names in it, if there may be new ones. It returns why it cannot say what is there.
func (p *poller) look(e *entry) error {
	n := p.seen.Load()
	if n%sampleEvery == 0 || p.slowFor.Load() > 0 {
		defer func(start time.Time) {
			if time.Since(start) > slowCall {
				p.slowFor.Store(slowSpell)
			} else {
				p.slowFor.Add(-1)
			}
		}(time.Now())
	}
	if e.unlisted {
		return fs.ErrNotExist // whatever its stat says: where case is ignored, it would find a renamed file
	}
	err := p.restat(e)
	if e.stamp.there() {
		p.seen.Add(1)
	}
	if err == nil && e.stamp.kind == directory && p.tree &&
		(e.troubled || e.place.stale || (p.polls.Load()+n)%rereadEvery == 0) {
		err = p.readDir(e)
	}
	return err
}

// A stat of a file on a network mount is answered from a cache that is up to a minute old, unless the client asks its
// server, which it does when the file is opened. So directories and named files are opened before their stat there. On
// a local disk that would only wake other people's inotify watchers and scanners. Files on SMB are not opened, because
// Linux closes them late: a file that is opened at every poll is answered from the first open, for ever.

// openParent opens the directory of the targets if one is missing or a file on a network mount, and reports whether.
func (p *poller) openParent() bool {
	for _, e := range p.roots {
		if e.stamp.kind != directory && (!e.stamp.there() || p.openAll || e.place.network) {
			p.touch(parentOf(e.path))
			return true
		}
	}
	return false
}

// touch opens and closes what was last seen to be a regular file or a directory. The separator at the end
// of a directory's name makes the open fail, and not block, if it is a FIFO by now. A failure says nothing.
func (p *poller) touch(name string) {
	if mayOpen {
		f, _ := p.open(name)
		f.Close() // which only returns an error if f is nil
	}
}

// restat stats e and notes what is different, or returns why it cannot say.
func (p *poller) restat(e *entry) error {
	root, was := p.rootOf(e).place, e.stamp.kind
	switch {
	case was == directory && (p.openAll || e.place.network):
		p.touch(withSeparator(e.path))
	case was == file && !root.smb && (p.openAll || e.parent == nil && root.network):
		p.touch(e.path)
	}
	stat := p.statOf
	if e.parent == nil {
		stat = p.statTarget
	}
	st, device, err := stat(e)
	p.answers.Add(1)
	if err != nil {
		return err
	}
	if !st.same(&e.stamp) {
		p.note(e, st)
	}
	e.stamp = st
	if p.openAll && e.parent != nil && st.kind == file && was != file {
		return p.restat(e) // which opens it, now that it is known to be a file
	}
	if e.place != nil && e.place.device != device {
		e.place.network, e.place.smb = p.network(device, p.now)
		e.place.device = device
	}
	return p.recheck(e)
}

// search returns why the directory e cannot be searched, or nil if it can.
func (p *poller) search(e *entry) error {
	_, err := p.lstat(withSeparator(e.path) + ".")
	return err
}

// statOf returns the stamp of e and its device. It follows links, but in a tree none to a directory, which may loop.
func (p *poller) statOf(e *entry) (st stamp, device uint64, err error) {
	stat := p.lstat
	if e.parent == nil {
		stat = p.stat
	}
	fi, err := stat(e.path)
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		var to os.FileInfo
		if to, err = p.stat(e.path); err == nil && !to.IsDir() { // a link to nothing is as absent
			fi = to
		}
		if err != nil && e.stamp.kind == directory {
			err = fs.ErrNotExist // wherever the link leads, it has replaced the directory
		}
	}
	if err != nil {
		return st, device, err
	}
	st, device = p.fields.stamp(fi)
	if e.parent != nil && st.kind != e.stamp.kind && p.patterns.exclude(p.below(e.path), st.kind == directory) {
		return stamp{}, 0, fs.ErrNotExist // its directory has changed, too, and readDir will leave it out
	}
	return st, device, nil
}

// errKept is why an entry keeps its last state, when the log has the reason already.
var errKept = errors.New("kept as it was")

// statTarget is statOf for a target. While a mount that the target was on is gone, it returns errKept. If the target
// is missing or another one than before, it asks for the mounts after that stat, and then stats again, because a mount
// that was gone may have come back between the two. From then on the target belongs to the mounts that it is on.
func (p *poller) statTarget(e *entry) (st stamp, device uint64, err error) {
	root, was := e.place, e.stamp.there()
	if !was {
		root.mounts = nil // what comes to be belongs to other ones
	} else if root.unmounted {
		if _, root.unmounted = p.mountsOf(e.path, root.mounts, p.now); root.unmounted {
			return st, device, errKept
		}
		root.stale = true
	}
	st, device, err = p.statOf(e)
	other := func() bool { return err == nil && (st.ino != e.stamp.ino || device != root.device) }
	if !other() && !(was && absent(err)) {
		return st, device, err
	}
	points, gone := p.mountsOf(e.path, root.mounts, time.Now())
	if root.unmounted = gone; gone {
		return st, device, errKept
	}
	if was {
		st, device, err = p.statOf(e)
	}
	if other() {
		root.mounts = points // of the same reading, so that undo misses a mount that goes now
	}
	return st, device, err
}

// absent reports whether err says that there is nothing. ERROR_BAD_NETPATH does not, though it is ErrNotExist to Go.
func absent(err error) bool {
	const badNetPath = syscall.Errno(53) // on Windows: the file server is gone
	return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, badNetPath) || errors.Is(err, syscall.ENOTDIR)
}

// failed reports whether err leaves it open what is there.
func failed(err error) bool { return err != nil && !absent(err) }

// note makes st the stamp of e, and the difference pending if subscribers are to know of it. A target is news when
// it is seen first, because the server may not have waited for it; what is below it then, only for -list.
func (p *poller) note(e *entry, st stamp) {
	stays := e.stamp.kind == directory && st.kind == directory // what it holds is reported instead
	quiet := e.parent != nil && p.roots[0].place.unknown && !p.list
	if !stays && !quiet {
		e.differs()
	}
	e.stamp, e.doubt = st, p.doubtOf(e, st)
	if st.kind == directory {
		e.place = cmp.Or(e.place, &place{}) // an earlier one may hold entries that are still to be reported
		e.place.stale = true
	}
}

// rootOf returns the target that e is, or is below.
func (p *poller) rootOf(e *entry) *entry {
	if e.parent == nil {
		return e
	}
	return p.roots[0]
}

const (
	maxHashed        = 1 << 20               // the size of the largest file whose content is compared
	wholeSecondGrain = 2 * time.Second       // the step of FAT's clock; others without a fraction have less
	clockSkew        = 24 * time.Hour        // how far such a clock, another machine's or in local time, is off
	fineGrain        = 20 * time.Millisecond // more than the kernel's tick, with which other clocks move
)

// doubtOf returns the doubt about a new stamp, nil if any write will change it or its content is not compared.
func (p *poller) doubtOf(e *entry, st stamp) *doubt {
	grain, margin := fineGrain, fineGrain
	if st.nsec == 0 {
		grain, margin = wholeSecondGrain, wholeSecondGrain+clockSkew
	}
	now, mtime := time.Now(), time.Unix(st.sec, int64(st.nsec))
	young := !mtime.Before(p.now.Add(-margin)) && !mtime.After(now.Add(margin))
	if st.kind == directory && young || st.kind == file && st.size <= maxHashed && (young || p.comparesAll(e)) {
		return &doubt{until: now.Add(grain)}
	}
	return nil
}

// comparesAll reports whether -content has the content of e compared at every poll.
func (p *poller) comparesAll(e *entry) bool { return p.content && !p.rootOf(e).place.smb }

// recheck looks behind the stamp of e if there is a doubt about it. The doubt ends with the first look after its time,
// unless the content cannot be read for now (EMFILE, EIO). Only with -content recheck returns why it cannot be read.
func (p *poller) recheck(e *entry) (err error) {
	d := e.doubt
	if d == nil {
		return nil
	}
	over := time.Now().After(d.until) && !p.comparesAll(e)
	if e.stamp.kind == directory {
		e.place.stale = true
	} else {
		var sum uint64
		sum, err = p.hash(e)
		if err == nil && d.checked && d.hash != sum {
			e.differs()
		}
		if err == nil || !d.checked {
			d.hash, d.checked = sum, true
		}
	}
	if over && (err == nil || absent(err) || errors.Is(err, fs.ErrPermission)) {
		e.doubt = nil
	}
	if absent(err) || !p.content { // the next stamp will tell
		return nil
	}
	return err
}

// errMoved is why there is no content of what the stamp is of: what was opened is not the same any more.
var errMoved = fmt.Errorf("changed since its stat: %w", fs.ErrNotExist)

// hash returns a hash of the content of the file e. Only a regular file is read, because a FIFO or a device that
// has replaced it would block. If the stamp differs after the reading, that is an error, and no change yet.
func (p *poller) hash(e *entry) (uint64, error) {
	f, err := p.open(e.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return 0, cmp.Or(err, errMoved)
	}
	var h maphash.Hash
	h.SetSeed(p.seed)
	if e.stamp.size == 0 { // a file like /proc/kmsg, which waits for more; a slow file server may take its time
		f.SetReadDeadline(time.Now().Add(time.Second))
	}
	buf := make([]byte, min(e.stamp.size+512, 32<<10)) // a file in /proc has more than its size
	for r := io.LimitReader(f, maxHashed); err == nil; {
		var n int
		n, err = r.Read(buf)
		h.Write(buf[:n])
		p.answers.Add(1)
	}
	fi, statErr := f.Stat()
	if err != io.EOF || statErr != nil {
		return 0, cmp.Or(statErr, err)
	}
	st, _ := p.fields.stamp(fi)
	st.ino = e.stamp.ino // an open file has another number on some file systems
	if !st.same(&e.stamp) {
		return 0, errMoved
	}
	return h.Sum64(), nil
}

// readDir compares the names in the directory e with what is known to be there, and adds what is new.
func (p *poller) readDir(e *entry) error {
	dir, prefix := e.place, withSeparator(e.path)
	dir.stale = true // until all is read
	f, err := p.open(prefix)
	if err != nil {
		return err
	}
	defer f.Close()
	if e.troubled {
		err = p.search(e)
	}
	names := map[string]bool{}
	for err == nil {
		var some []string
		some, err = p.someNames(f, prefix)
		p.answers.Add(1)
		for _, name := range some {
			if !p.madeUp.MatchString(name) {
				names[name] = true
			}
		}
	}
	if err != io.EOF {
		return err
	}
	dir.stale = false
	for _, c := range dir.entries {
		name := c.path[len(prefix):]
		c.unlisted = !names[name]
		delete(names, name)
	}
	for name := range names {
		dir.entries = append(dir.entries, &entry{path: prefix + name, parent: e})
	}
	slices.SortFunc(dir.entries, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	return nil
}

// someNames returns some more names in the directory f, without those that are excluded. If there are patterns, it
// reads types, too, because patterns ask for them, and because a file that is excluded must not cost a stat. Where a
// file system does not tell types, ReadDir stats each name, so few are read at a time.
func (p *poller) someNames(f *os.File, prefix string) (names []string, err error) {
	if len(p.patterns) == 0 {
		return f.Readdirnames(4096)
	}
	entries, err := f.ReadDir(256)
	below := p.below(prefix)
	for _, d := range entries {
		if !p.patterns.exclude(below+d.Name(), d.IsDir()) {
			names = append(names, d.Name())
		}
	}
	return names, err
}

// below returns path as patterns see it, which is below the target.
func (p *poller) below(path string) string {
	return filepath.ToSlash(strings.TrimPrefix(path[len(p.roots[0].path):], string(filepath.Separator)))
}

// judge takes in what a look at e returned, and returns the error that the entries in e get in place of a look. If
// the directory of e cannot be searched, that is why e cannot be looked at, and all that is in it stays as it was.
func (p *poller) judge(e *entry, err error) (below error) {
	if err == nil && e.place == nil && e.pending == nil && !e.troubled {
		e.missed = false
		return nil // most files are as they were, and need no lock
	}
	dir, unsearchable := e.parent, error(nil)
	if dir != nil && failed(err) && err != errKept && !e.troubled {
		unsearchable = p.search(dir)
	}
	p.judging.Lock()
	defer p.judging.Unlock()
	if failed(unsearchable) {
		p.trouble(dir, unsearchable)
	}
	if dir != nil && dir.troubled {
		err = errKept
	}
	p.trouble(e, err)
	missed := absent(err)
	if missed && dir != nil && (e.stamp.there() || e.unlisted) {
		dir.place.stale = true
	}
	if missed && e.missed { // in two polls in a row, so that an editor's unlink and create is one change
		p.note(e, stamp{})
	}
	e.missed = missed && e.stamp.there()
	if e.pending != nil {
		p.differing = append(p.differing, e)
	}
	switch {
	case failed(err):
		return errKept
	case !e.holds():
		return fs.ErrNotExist
	}
	return nil
}

// trouble logs when looks at e begin to fail, and when they do not any more.
func (p *poller) trouble(e *entry, err error) {
	if err == errKept || e.troubled == failed(err) {
		return
	}
	e.troubled = failed(err)
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err // without the operation and the path
	}
	text := "readable again"
	switch {
	case e.troubled && e.stamp.there():
		text = err.Error() + "; keeping its last state"
	case e.troubled:
		text = err.Error() + "; waiting for it"
	case err != nil:
		text = "not there"
	}
	p.logger.Printf("%s: %s", quote(p.shown(e, e.stamp.kind)), text)
}

// answered notes which targets have answered, and passes on what the log is to say of their first poll.
func (p *poller) answered() {
	for _, e := range p.roots {
		e.place.unknown = e.place.unknown && e.troubled
		if p.polls.Load() > 0 {
			continue
		}
		line := "waiting for "
		if e.stamp.there() {
			line = "watching "
		}
		line += quote(p.shown(e, e.stamp.kind))
		if e.stamp.kind == directory {
			line += fmt.Sprintf(" (%d entries)", p.seen.Load())
		}
		e.place.line = line
		p.firsts <- e.place
	}
	p.polls.Add(1)
}

const secondLooks = 16 // so many differences of a tree get one: more than 1, because some differences are real

// undo takes back what this poll has seen of targets whose mount is gone: it may be what lies below the mount point.
// The mount of a tree may also have been gone for a part of the poll. Then a second look finds a path as before.
func (p *poller) undo() {
	var root *entry
	gone, now := false, time.Now()
	for _, e := range p.differing {
		d, r := e.pending, p.rootOf(e)
		if d.last().Before(p.now) || e.stamp.same(&d.told) {
			continue // an earlier poll saw it, or the stamp is the old one, so that the file is the old one
		}
		if r != root {
			root = r
			_, gone = p.mountsOf(r.path, r.place.mounts, now)
			gone = gone || p.tree && len(r.place.mounts) > 0 &&
				slices.ContainsFunc(p.differing[:min(len(p.differing), secondLooks)], p.isAsBefore)
		}
		if gone {
			e.stamp, e.doubt = d.told, d.doubt
		}
		if gone && !d.first.Before(p.now) { // or else what an earlier poll saw is still to be told
			e.pending = nil
		}
	}
}

// isAsBefore stats e, which differed, and reports whether it is again what subscribers know, and was not written: that
// moves the ctime. What was created and is gone proves nothing, because files come and go.
func (p *poller) isAsBefore(e *entry) bool {
	told := &e.pending.told
	if !told.there() || e.unlisted || e.stamp.same(told) {
		return false
	}
	st, _, err := p.statOf(e)
	p.answers.Add(1)
	return err == nil && st.same(told) && st.ctime == told.ctime
}

// tell reports the differences of due. Removals come first, deepest first, then the rest, parents first.
// What has become a directory, or was one, is removed as what it was and created as what it is.
func (p *poller) tell(due []*entry) {
	slices.SortStableFunc(due, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	changes := make([]change, 0, len(due)) // growing it would cost memory with 100,000 of -list
	for _, e := range slices.Backward(due) {
		if e.ended() && !e.holdsTold() {
			changes = append(changes, p.change(e, stamp{}))
			e.pending.told = stamp{}
		}
	}
	for _, e := range due {
		told := e.pending.told
		switch {
		case !e.stamp.there() && !told.there():
			e.pending = nil
		case e.parent != nil && (e.parent.told().kind != directory || !e.parent.holds()):
			// The creation of its parent settles later, or it was seen behind a link that replaced its parent.
		case e.ended():
			// The removal of something below settles later.
		default:
			if !told.there() || e.stamp.kind != directory {
				changes = append(changes, p.change(e, e.stamp))
			}
			e.pending = nil
		}
	}
	p.report(changes)
}

// change returns the change by which e becomes st for subscribers. What is gone is shown as what it was.
func (p *poller) change(e *entry, st stamp) change {
	d := e.pending
	path := p.shown(e, cmp.Or(st.kind, d.told.kind))
	return change{path, p.rootOf(e).place.target, e.parent == nil, !d.told.there(), st, d.last().UnixMilli()}
}

const maxSettles = 10 // settle durations, after which even what never keeps still is reported

// settled reports whether there is a difference of e that is to be reported now. If this poll missed e, the next one
// will tell whether it is there. What a target is at first does not wait.
func (p *poller) settled(e *entry) bool {
	d := e.pending
	return d != nil && !e.missed && (p.settle == 0 || p.rootOf(e).place.unknown ||
		p.now.Sub(d.last()) >= p.settle || p.now.Sub(d.first)/maxSettles >= p.settle)
}

// shown returns the path of e as the protocol shows it, unquoted, when e is of kind k.
func (p *poller) shown(e *entry, k kind) string {
	root := p.rootOf(e)
	path := p.targets[root.place.target]
	if e != root && path == root.path {
		path = e.path // which needs no memory of its own, as with -list
	} else if e != root {
		path = withSeparator(path) + e.path[len(withSeparator(root.path)):]
	}
	if k == directory {
		path = withSeparator(path)
	}
	return path
}

// An entry is a path that a poller knows. There can be a million, so it is small.
type entry struct {
	path     string // what stat is given
	parent   *entry // nil for a target
	stamp    stamp
	place    *place   // of a target, and of what is or was a directory
	pending  *pending // what subscribers have not been told yet, or nil
	doubt    *doubt   // why an equal stamp proves nothing yet, or nil
	missed   bool     // the last poll did not find it, but it still counts as there
	unlisted bool     // its name was not there when its directory was last read
	troubled bool     // the log says that it cannot be looked at; what is in it stays as it was
}

// A place is what is kept of a directory or a target, beside its entry.
type place struct {
	entries []*entry // what is known to be in it, in the order of names, so that polls go the same way
	stale   bool     // it must be read again
	device  uint64   // 0 where the system does not tell it
	network bool     // that belongs to a network mount
	smb     bool     // and that speaks SMB

	// Of targets only.
	target    int32    // its index
	line      string   // what the log is to say of it after its first poll
	unknown   bool     // it has not answered yet, so what is there is not news
	mounts    []string // the mount points that it is on or below
	unmounted bool     // one of them is not mounted
}

// A pending difference waits to settle, and for its parent's turn. With the size of an entry, 100,000 of them for
// -list would be allocated between entries and leave 10 MB of holes.
type pending struct {
	told  stamp  // what subscribers know
	doubt *doubt // about that
	first time.Time
	lasts time.Duration // from first until it was last seen to differ
}

// last returns when it was last seen to differ.
func (d *pending) last() time.Time { return d.first.Add(d.lasts) }

// A doubt lasts while a second write could leave the same stamp, because the clock that mtimes are taken from moves
// in steps. Git calls such an entry racily clean.
type doubt struct {
	until   time.Time
	checked bool   // there was a look at the content
	hash    uint64 // of it, 0 if it could not be read at first
}

// differs notes that e is now seen to be something else than before.
func (e *entry) differs() {
	now := time.Now()
	if e.pending == nil {
		e.pending = &pending{told: e.stamp, doubt: e.doubt, first: now}
	}
	e.pending.lasts = now.Sub(e.pending.first)
}

// ended reports whether what subscribers know of e is gone, or was a directory and is none now, or the reverse.
func (e *entry) ended() bool {
	told := e.told()
	return told.there() && (!e.stamp.there() || (told.kind == directory) != (e.stamp.kind == directory))
}

// told returns the stamp of e that subscribers know.
func (e *entry) told() stamp {
	if e.pending != nil {
		return e.pending.told
	}
	return e.stamp
}

// holds reports whether e is a directory, so that what is seen below is in it.
func (e *entry) holds() bool { return e.stamp.kind == directory && !e.missed }

// holdsTold reports whether subscribers know of anything in e.
func (e *entry) holdsTold() bool {
	return e.place != nil && slices.ContainsFunc(e.place.entries, func(c *entry) bool { return c.told().there() })
}

// A stamp is what a poll remembers of a path. Mode, owner, atime and link count say nothing about its content.
type stamp struct {
	sec   int64 // of the mtime
	nsec  int32
	kind  kind
	size  int64
	ino   uint64 // 0 where the system does not tell it
	ctime int64  // in nanoseconds, which is good for comparing only
}

type kind uint8

const (
	gone kind = iota
	file
	directory
	other // device, FIFO, socket, or a link to a directory inside a tree
)

// there reports whether the stamp is of something that is there.
func (s stamp) there() bool { return s.kind != gone }

// same reports whether two stamps can be of the same content. It never asks for later: tar, git and rsync set older
// mtimes. An inode number alone proves nothing, because sshfs and others number a file anew when the kernel has
// forgotten it, and a ctime alone moves with mode, owner and link count.
func (s *stamp) same(t *stamp) bool {
	return s.kind == t.kind && s.sec == t.sec && s.nsec == t.nsec && s.size == t.size &&
		(s.ino == t.ino || s.ctime == t.ctime)
}

// statFields are where in the struct behind a FileInfo's Sys the fields are that package os does not show.
type statFields struct{ dev, ino, ctime []int } // nil where the system has none

// findStatFields finds them by name, because their types and order differ from system to system.
func findStatFields() statFields {
	fi, err := os.Lstat(string(filepath.Separator))
	if err != nil {
		return statFields{}
	}
	sys := reflect.TypeOf(fi.Sys()).Elem()
	dev, _ := sys.FieldByName("Dev")
	ino, _ := sys.FieldByName("Ino")
	ctime, _ := sys.FieldByNameFunc(func(name string) bool {
		return name == "Ctim" || name == "Ctimespec" // as macOS and NetBSD call it
	})
	return statFields{dev.Index, ino.Index, ctime.Index}
}

// stamp returns the stamp of what fi describes, and the number of its device, or 0.
func (f statFields) stamp(fi os.FileInfo) (s stamp, device uint64) {
	mtime := fi.ModTime()
	s = stamp{sec: mtime.Unix(), nsec: int32(mtime.Nanosecond()), kind: other, size: fi.Size()}
	switch {
	case fi.Mode().IsRegular():
		s.kind = file
	case fi.IsDir():
		s.kind = directory
	}
	if f.ino == nil || f.ctime == nil {
		return s, 0
	}
	sys := reflect.ValueOf(fi.Sys()).Elem()
	ctime := sys.Field(f.ctime[0])
	s.ino, s.ctime = sys.Field(f.ino[0]).Uint(), ctime.Field(0).Int()*1e9+ctime.Field(1).Int()
	if dev := sys.Field(f.dev[0]); dev.CanUint() { // as on Linux, where it matters
		device = dev.Uint()
	}
	return s, device
}

// mounts is what Linux says in /proc/self/mountinfo. Elsewhere every device counts as local, and no mount is known.
type mounts struct {
	mu      sync.Mutex
	file    *os.File // stays open, so that a want of descriptors does not matter
	readAt  time.Time
	points  map[string]bool   // mount points, none if they could not be read
	devices map[string]string // file system types, by major:minor
	lost    map[string]bool   // mount points that the log says are not mounted
}

// lockMounts returns the mounts, locked, as they are at since or later. The lines of the file look like
//
//	36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw
func (g *polling) lockMounts(since time.Time) *mounts {
	m := &g.mounts
	m.mu.Lock()
	if !m.readAt.Before(since) {
		return m
	}
	m.readAt, m.points, m.devices = time.Now(), map[string]bool{}, map[string]string{}
	if m.file == nil {
		m.file, _ = g.open("/proc/self/mountinfo")
	}
	m.file.Seek(0, io.SeekStart)
	text, err := io.ReadAll(m.file)
	if err != nil { // also if it could not be opened
		return m
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(text)) {
		mount, source, _ := strings.Cut(line, " - ")
		fstype, _, _ := strings.Cut(source, " ")
		if fields := strings.Split(mount, " "); len(fields) >= 5 {
			m.points[unescape.Replace(fields[4])] = true
			m.devices[fields[2]] = fstype
		}
	}
	return m
}

// network reports whether another machine or program can change what is on a device, and whether it is on SMB, as
// mounts are at since or later. A device that is not listed (btrfs, overlay) is local. fuse.sshfs counts as fuse.
func (g *polling) network(device uint64, since time.Time) (network, smb bool) {
	m := g.lockMounts(since)
	defer m.mu.Unlock()
	number := fmt.Sprintf("%d:%d", device>>8&0xfff|device>>32&^0xfff, device&0xff|device>>12&^0xff) // of st_dev
	fstype, _, _ := strings.Cut(m.devices[number], ".")
	others := "9p afs ceph coda fuse lustre nfs nfs4 ocfs2 orangefs prl_fs vboxsf virtiofs vmhgfs"
	smb = slices.Contains([]string{"cifs", "smb3", "smbfs"}, fstype)
	return smb || slices.Contains(strings.Fields(others), fstype), smb
}

// mountsOf returns the mount points that path is on or below, as they are at since or later. It leaves out the root
// directory, which is never unmounted. It also reports whether one of those before is not mounted any more while its
// directory is there, and path leads into that or nowhere. The log says when a mount goes and comes back. While mounts
// cannot be read, they count as gone, so that nothing is removed.
func (g *polling) mountsOf(path string, before []string, since time.Time) (points []string, gone bool) {
	path, err := filepath.EvalSymlinks(path)
	on := func(point string) bool { return strings.HasPrefix(path+"/", point+"/") }
	m := g.lockMounts(since)
	defer m.mu.Unlock()
	for point := range m.points {
		if point != "/" && on(point) {
			points = append(points, point)
		}
	}
	for _, point := range before {
		lost := !m.points[point]
		if lost {
			_, err := g.lstat(point)
			lost = err == nil
		}
		switch name := quote(withSeparator(point)); {
		case lost && !m.lost[point]:
			g.logger.Printf("%s: not mounted; keeping its last state", name)
		case m.lost[point] && m.points[point]:
			g.logger.Printf("%s: mounted again", name)
		case m.lost[point] && !lost:
			g.logger.Printf("%s: not there", name)
		}
		m.lost[point] = lost
		gone = gone || lost && (err != nil || on(point))
	}
	return points, gone
}
