package main

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A poller looks at its targets, and at everything below those that are
// directories, again and again, and appends what is different to the change
// log. One goroutine runs it. A stat may hang for ever, so nobody waits for
// that goroutine, and targets that live in different directories, or are
// directories, have pollers of their own.
type poller struct {
	config
	log      *changeLog
	seed     maphash.Seed
	idFields []int

	roots        []*entry  // the targets
	all          []*entry  // what the current poll looks at, parents before what they hold
	now          time.Time // when the current poll began
	polls        int       // how many have begun
	began        bool      // the baseline is taken: what differs from now on is a change
	lastProgress time.Time // when a slow baseline last said how far it is
	seen         int       // how far that was
	slow         bool      // the latest calls were slow, so make the next ones side by side

	mu     sync.Mutex
	failed map[*entry]error // what the current poll met in place of a stamp, or of names
}

// An entry is a path that a poller knows. There can be a million, so it is small.
type entry struct {
	path     string // what stat is given: a target as typed, or a name joined onto it
	parent   *entry // nil for a target
	stamp    stamp
	below    *listing // of what is, or once was, a directory
	pending  *pending // what subscribers have not been told yet, or nil
	doubt    *doubt   // why an equal stamp is no proof yet, or nil
	target   int32    // index of the target that this is or is below
	missed   uint8    // polls in a row that did not find what was there
	unlisted bool     // its name was not there when its directory was last read
	bad      bool     // the log has been told of its trouble, and not of the end
	blind    bool     // the same for comparing its content
}

// A listing is what is known to be in a directory.
type listing struct {
	entries []*entry // in the order of their names
	found   []*entry // those among them that the current poll has yet to look at
	stale   bool     // the directory must be read again
}

// A pending difference waits to settle, and for its parent's turn.
type pending struct {
	told        stamp // what subscribers know
	first, last time.Time
}

// A doubt lasts while a second write could leave the same stamp as the first,
// because the clock that mtimes are taken from moves in steps.
type doubt struct {
	since  time.Time
	grain  time.Duration
	hash   uint64
	hashed bool
}

// A stamp is what a poll remembers of a path: what it is, and how to tell
// whether it is still the same. Mode, owner, ctime, atime and link count are
// left out, for they say nothing about content.
type stamp struct {
	sec  int64 // of the mtime
	nsec int32
	kind kind
	size int64
	id   [2]uint64   // device and inode
	info os.FileInfo // in their place, where a system does not show them
}

type kind uint8

const (
	gone kind = iota
	file
	directory
	other // device, FIFO, socket, or a link to a directory inside a tree
)

const (
	// missesToRemove polls in a row must miss a path, so that an editor's
	// unlink and create is one change.
	missesToRemove = 2

	// maxHashed is the size of the largest file whose content is compared.
	maxHashed = 1 << 20

	// An mtime without a fraction comes from a clock that may move in steps of
	// wholeSecondGrain (FAT), and may be another machine's, clockSkew away from
	// ours. Others move with the kernel's tick, which fineGrain exceeds.
	wholeSecondGrain = 2 * time.Second
	clockSkew        = time.Minute
	fineGrain        = 20 * time.Millisecond

	// About every rereadEvery polls a directory is read even if its stamp stands
	// still: some file systems do not keep the times of directories.
	rereadEvery = 16

	// A call that takes slowCall waits for something other than this machine,
	// so sideBySide of them cost no more time than one.
	slowCall   = 100 * time.Microsecond
	sideBySide = 32

	// maxSettles times the settle duration is how long a path that never keeps
	// still can go unreported.
	maxSettles = 10

	// With manyEntries, the FileInfos of one poll are about as large as the entries.
	// Below manyGC percent they would be collected several times a poll.
	manyEntries = 2000
	manyGC      = 100

	// progressEvery is how often a baseline that takes long says how far it is.
	progressEvery = 2 * time.Second
)

// errMoved says that what was opened is not what the stamp is of.
var errMoved = errors.New("changed since its stat")

// startPollers starts polling c.targets until ctx is done, and returns at once.
// What the targets are at first reaches l by changeLog.baseline.
func startPollers(ctx context.Context, c config, l *changeLog) {
	common := newPoller(c, l)
	byDir := map[string]*poller{}
	for i, name := range c.targets {
		dir := filepath.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = common.clone()
		}
		byDir[dir].roots = append(byDir[dir].roots, &entry{path: name, target: int32(i)})
	}
	for _, p := range byDir {
		go p.run(ctx)
	}
}

// newPoller returns a poller that has no targets yet.
func newPoller(c config, l *changeLog) *poller {
	return &poller{config: c, log: l, seed: maphash.MakeSeed(), idFields: findIDFields(), lastProgress: time.Now()}
}

// clone returns a new poller of roots, set up as p is.
func (p *poller) clone(roots ...*entry) *poller {
	return &poller{
		config: p.config, log: p.log, seed: p.seed, idFields: p.idFields,
		roots: roots, began: p.began, lastProgress: p.lastProgress,
	}
}

// run polls until ctx is done, with the interval as a pause after each poll.
func (p *poller) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.poll(ctx)
		wait(ctx, p.interval)
	}
}

// poll looks at all that is known, reads the directories that may hold
// something new, looks at that, and so on down; then it reports.
func (p *poller) poll(ctx context.Context) {
	p.now = time.Now()
	p.failed = nil
	p.polls++
	p.spread(p.roots, p.lookAt)
	p.split(ctx)
	p.all = append(p.all[:0], p.roots...)
	for _, e := range p.roots {
		p.all = e.appendBelow(p.all)
	}
	p.spread(p.all[len(p.roots):], p.lookAt)
	for unread := p.all; len(unread) > 0; {
		unread = p.read(unread)
		p.all = append(p.all, unread...)
		p.spread(unread, p.lookAt)
	}
	if len(p.all) >= manyEntries {
		debug.SetGCPercent(manyGC)
	}
	p.judge()
	if !p.began {
		p.endBaseline()
	}
	p.report()
}

// split gives each target that turns out to be a directory a poller of its own,
// so that a tree neither delays nor, when it hangs, silences its neighbours.
func (p *poller) split(ctx context.Context) {
	for i := 0; i < len(p.roots) && len(p.roots) > 1; {
		if p.roots[i].stamp.kind != directory {
			i++
			continue
		}
		q := p.clone(p.roots[i])
		p.roots = slices.Delete(p.roots, i, i+1)
		go q.run(ctx)
	}
}

// appendBelow appends what is known below e to all, parents first, and forgets
// what everybody knows is gone.
func (e *entry) appendBelow(all []*entry) []*entry {
	if e.below == nil {
		return all
	}
	e.below.entries = slices.DeleteFunc(e.below.entries, (*entry).forgettable)
	for _, c := range e.below.entries {
		all = append(all, c)
		all = c.appendBelow(all)
	}
	return all
}

// spread calls f with each of es, and notes the errors. It begins with few, to learn
// early whether calls are slow, and while they are it makes sideBySide of them at a
// time. So a call may touch nothing but its entry and, when that is a directory, the
// entries directly below.
func (p *poller) spread(es []*entry, f func(*entry) error) {
	for done := 0; done < len(es); {
		step, workers := min(16, done+1, len(es)-done), 1
		if p.slow {
			step, workers = min(4*sideBySide, len(es)-done), sideBySide
		}
		batch := es[done : done+step]
		start := time.Now()
		inParallel(workers, step, func(i int) {
			if err := f(batch[i]); err != nil {
				p.fail(batch[i], err)
			}
		})
		now := time.Now()
		p.slow = now.Sub(start)*time.Duration(min(workers, step)) > slowCall*time.Duration(step)
		done += step
		if !p.began && now.Sub(p.lastProgress) >= progressEvery {
			p.lastProgress = now
			p.seen = max(p.seen, done, len(p.all)-len(es)+done) // p.all ends with es, unless that is directories to read
			p.log.logger.Printf("reading %s: %d entries so far", quote(p.roots[0].display()), p.seen)
		}
	}
}

// fail notes what the current poll met in place of the stamp of e, or of the names in it.
func (p *poller) fail(e *entry, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = map[*entry]error{}
	}
	p.failed[e] = err
}

// inParallel calls f with 0 to n-1, in as many goroutines as there are workers.
func inParallel(workers, n int, f func(int)) {
	if workers == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	for first := range workers {
		wg.Go(func() {
			for i := first; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// lookAt stats e and notes what is different, or returns why it cannot say.
func (p *poller) lookAt(e *entry) error {
	p.progress()
	st, err := p.stampOf(e)
	switch {
	case err != nil:
		return err
	case !st.same(&e.stamp):
		p.note(e, st)
	case e.doubt != nil:
		p.recheck(e)
	}
	if e.bad && st.kind == directory {
		e.below.stale = true
		return p.searchable(e)
	}
	return nil
}

// progress shows changeLog.await that the baseline does not stand still.
func (p *poller) progress() {
	if !p.began {
		p.log.looked.Add(1)
	}
}

// stampOf stats e. A target's links are followed. Inside a tree those to a
// directory are not, so that no loop of links makes a tree endless.
func (p *poller) stampOf(e *entry) (stamp, error) {
	stat := p.lstat
	if e.parent == nil {
		stat = p.stat
	}
	fi, err := stat(e.path)
	if err != nil {
		return stamp{}, err
	}
	if fi.Mode()&fs.ModeSymlink != 0 {
		to, err := p.stat(e.path)
		if err != nil && e.stamp.kind == directory {
			return stamp{}, fs.ErrNotExist // wherever the link leads, the directory has made way for it
		}
		if err != nil {
			return stamp{}, err // nothing, perhaps: a dangling link is as absent
		}
		if !to.IsDir() {
			fi = to
		}
	}
	return newStamp(fi, p.idFields), nil
}

// searchable returns why nothing in the directory e can be reached, or nil.
func (p *poller) searchable(e *entry) error {
	_, err := p.lstat(e.prefix() + ".")
	return err
}

// absent reports whether err says that there is nothing. Any other error says
// nothing about that.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// note makes st what e is now. Where that matters to subscribers, the
// difference from what they were told becomes pending.
func (p *poller) note(e *entry, st stamp) {
	stays := e.stamp.kind == directory && st.kind == directory // what it holds is reported instead
	if p.began && !stays && (e.stamp.there() || st.there()) {
		p.differs(e)
	}
	e.stamp = st
	if st.kind == directory {
		if e.below == nil {
			e.below = &listing{}
		}
		e.below.stale = true
	}
	e.doubt = p.doubtOf(e)
}

// differs notes that e is now seen to be something else than before.
func (p *poller) differs(e *entry) {
	now := time.Now()
	if e.pending == nil {
		e.pending = &pending{told: e.stamp, first: now}
	}
	e.pending.last = now
}

// doubtOf returns the doubt to have about a stamp that is seen for the first time:
// nil if any later write will change it, or if content is not compared.
func (p *poller) doubtOf(e *entry) *doubt {
	d := &doubt{since: time.Now(), grain: fineGrain}
	margin := fineGrain
	if e.stamp.nsec == 0 {
		d.grain, margin = wholeSecondGrain, wholeSecondGrain+clockSkew
	}
	mtime := time.Unix(e.stamp.sec, int64(e.stamp.nsec))
	young := !mtime.Before(p.now.Add(-margin)) && !mtime.After(d.since.Add(margin))
	switch {
	case e.stamp.kind == directory && young:
		return d
	case e.stamp.kind == file && e.stamp.size <= maxHashed && (young || p.content):
		p.compare(e, d)
		return d
	}
	return nil
}

// recheck looks behind the stamp of e, which is the same as before. A doubt that has
// outlived its grain is dropped after this check, unless -content wants it or the
// content could not be read for now (EMFILE, EIO).
func (p *poller) recheck(e *entry) {
	d := e.doubt
	over := time.Since(d.since) > d.grain && !p.content
	if e.stamp.kind == directory {
		e.below.stale = true
	} else {
		before := *d
		err := p.compare(e, d)
		if err == nil && (!before.hashed || before.hash != d.hash) {
			p.differs(e)
		}
		over = over && (err == nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, errMoved))
	}
	if over {
		e.doubt = nil
	}
}

// compare takes a new hash of the content of e for d. With -content the log is told
// when that cannot be done, and when it can again.
func (p *poller) compare(e *entry, d *doubt) error {
	sum, err := p.hash(e)
	if err == nil {
		d.hash, d.hashed = sum, true
	}
	if errors.Is(err, errMoved) || absent(err) {
		return err // and no trouble: the next stamp will tell
	}
	if blind := err != nil; p.content && blind != e.blind {
		e.blind = blind
		if blind {
			p.log.logger.Printf("%s: %v; not comparing its content", quote(e.path), reason(err))
		} else {
			p.log.logger.Printf("%s: comparing its content again", quote(e.path))
		}
	}
	return err
}

// hash returns a hash of what the file e holds. Only regular files are read, for
// what has taken the name since could block. What differs from the stamp of e by
// the end of reading is an error, and not a change yet: the next stamp will tell.
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
	buf := make([]byte, min(e.stamp.size+512, 32<<10)) // small for small files, though one in /proc has more than its size
	if _, err := io.CopyBuffer(&h, io.LimitReader(f, maxHashed), buf); err != nil {
		return 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	st := newStamp(fi, p.idFields)
	st.id, st.info = e.stamp.id, e.stamp.info // an open file has another number on some file systems
	if !st.same(&e.stamp) {
		return 0, errMoved
	}
	return h.Sum64(), nil
}

// read reads those of es that are directories and may hold something new, and
// returns what it found that was not known.
func (p *poller) read(es []*entry) []*entry {
	var dirs, found []*entry
	for i, e := range es {
		if e.stamp.kind == directory && p.failed[e] == nil && (e.below.stale || (p.polls+i)%rereadEvery == 0) {
			dirs = append(dirs, e)
		}
	}
	p.spread(dirs, p.readDir)
	for _, e := range dirs {
		found = append(found, e.below.found...)
		e.below.found = nil
	}
	return found
}

// readDir compares the names in the directory e with what is known to be there.
// Known names that are not listed are absent, whatever their stat said: on a file
// system that ignores case a stat finds a renamed file under its old name too.
func (p *poller) readDir(e *entry) error {
	prefix := e.prefix()
	names, err := p.names(prefix)
	e.below.stale = err != nil
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range e.below.entries {
		name := c.path[len(prefix):]
		c.unlisted = !names[name]
		delete(names, name) // what is left is new
	}
	e.below.found = newEntries(e, prefix, slices.Sorted(maps.Keys(names)))
	e.below.entries = append(e.below.entries, e.below.found...)
	slices.SortFunc(e.below.entries, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	return nil
}

// newEntries returns entries in the directory parent. They and their paths share
// two pieces of memory, which is far less work for the garbage collector.
func newEntries(parent *entry, prefix string, names []string) []*entry {
	if len(names) == 0 {
		return nil
	}
	block, found := make([]entry, len(names)), make([]*entry, len(names))
	paths := prefix + strings.Join(names, prefix)
	for i, name := range names {
		n := len(prefix) + len(name)
		block[i] = entry{path: paths[:n], parent: parent, target: parent.target}
		found[i], paths = &block[i], paths[n:]
	}
	return found
}

// names returns the names in a directory that are not excluded. It opens the "."
// in it, which fails and does not block if it is a FIFO by now.
func (p *poller) names(prefix string) (map[string]bool, error) {
	f, err := p.open(prefix + ".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := map[string]bool{}
	for err == nil {
		var some []string
		some, err = f.Readdirnames(4096)
		for _, name := range some {
			if !p.excluded(name) {
				names[name] = true
			}
		}
		p.progress()
	}
	if err != io.EOF {
		return nil, err
	}
	return names, nil
}

// excluded reports whether -exclude wants an entry of that name skipped.
func (p *poller) excluded(name string) bool {
	return slices.ContainsFunc(p.exclude, func(pattern string) bool {
		matched, _ := path.Match(pattern, name) // parse has seen that it is well formed
		return matched
	})
}

// judge goes through what the looks met, parents first, for what one entry met
// can mean something else in the light of another.
func (p *poller) judge() {
	for _, e := range p.all {
		err := p.failed[e]
		if e.unlisted || e.parent != nil && !e.parent.holds() {
			err = fs.ErrNotExist
		}
		switch {
		case err == nil:
			e.missed = 0
			p.recovered(e, "readable again")
		case !absent(err):
			e.missed = 0
			p.trouble(e, err)
		case e.parent != nil && e.parent.troubled():
			e.missed = 0 // what cannot be read can look empty
		default:
			p.miss(e)
		}
	}
}

// miss counts a poll that did not find e, and makes it gone when that is enough.
func (p *poller) miss(e *entry) {
	p.recovered(e, "not there")
	if e.parent != nil && (e.stamp.there() || e.unlisted) {
		e.parent.below.stale = true
	}
	if !e.stamp.there() {
		return
	}
	e.missed++
	if e.missed == missesToRemove {
		e.missed = 0
		p.note(e, stamp{})
	}
}

// trouble logs that e cannot be looked at. Where that is because of the directory
// that it is in, one line speaks for all that is below.
func (p *poller) trouble(e *entry, err error) {
	if e.troubled() {
		return
	}
	if e.parent != nil {
		if why := p.searchable(e.parent); why != nil && !absent(why) {
			e, err = e.parent, why
		}
	}
	e.bad = true
	does := "keeping its last state"
	if !e.stamp.there() {
		does = "waiting for it"
	}
	p.log.logger.Printf("%s: %v; %s", quote(e.display()), reason(err), does)
}

// recovered ends the trouble with e, if there was any.
func (p *poller) recovered(e *entry, how string) {
	if e.bad {
		e.bad = false
		p.log.logger.Printf("%s: %s", quote(e.display()), how)
	}
}

// troubled reports whether e, or a directory above it, cannot be looked at.
func (e *entry) troubled() bool {
	for ; e != nil; e = e.parent {
		if e.bad {
			return true
		}
	}
	return false
}

// reason returns err without the operation and the path, which its reader knows.
func reason(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// endBaseline tells the log what the targets are at first. From now on what
// differs is a change. If the log has not waited for it, all that is there is news
// to its subscribers.
func (p *poller) endBaseline() {
	p.began = true
	var found []target
	for _, e := range p.roots {
		r := record{path: e.display(), target: int(e.target), stamp: e.stamp}
		found = append(found, target{record: r, entries: len(p.all), known: true})
	}
	if p.log.baseline(found) {
		return
	}
	p.log.announce(found)
	now := time.Now()
	for _, e := range p.all {
		if e.stamp.there() {
			e.pending = &pending{first: now, last: now}
		}
	}
}

// report appends to the log what is pending and has settled. Removals come
// first, deepest first, then the rest, parents first. What has become a
// directory, or was one, is removed as what it was and created as what it is.
func (p *poller) report() {
	var due []*entry
	for _, e := range p.all {
		if p.due(e) {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	var changes []*record
	for _, e := range slices.Backward(due) {
		if e.ended() && !e.holdsTold() {
			changes = append(changes, e.change(e.displayAs(e.pending.told.kind), stamp{}, false))
			e.pending.told = stamp{}
		}
	}
	for _, e := range due {
		told := e.pending.told
		switch {
		case !e.stamp.there() && !told.there():
			e.pending = nil
		case e.parent != nil && (e.parent.told().kind != directory || !e.parent.holds()):
			// Its parent's creation settles later, or what was seen is not in its
			// parent any more, but behind a link in its place.
		case !told.there():
			changes = append(changes, e.change(e.display(), e.stamp, true))
			e.pending = nil
		case e.ended():
			// The removal of something below settles later.
		default:
			if e.stamp.kind != directory {
				changes = append(changes, e.change(e.display(), e.stamp, false))
			}
			e.pending = nil
		}
	}
	p.log.append(changes)
}

// change returns the record that e, shown as path, is st now.
func (e *entry) change(path string, st stamp, created bool) *record {
	return &record{path: path, target: int(e.target), root: e.parent == nil, created: created, stamp: st, time: e.pending.last}
}

// due reports whether e has a difference that is to be reported now.
func (p *poller) due(e *entry) bool {
	if e.pending == nil || e.missed > 0 { // whether it is there, the next poll will tell
		return false
	}
	return p.settle == 0 || p.now.Sub(e.pending.last) >= p.settle || p.now.Sub(e.pending.first)/maxSettles >= p.settle
}

// ended reports whether what subscribers know of e is not there any more: it is
// gone, or a directory has become something else, or something else a directory.
func (e *entry) ended() bool {
	told := e.told()
	return told.there() && (!e.stamp.there() || (told.kind == directory) != (e.stamp.kind == directory))
}

// forgettable reports whether e is gone, and everybody knows. A dangling link is
// gone, but listed.
func (e *entry) forgettable() bool {
	return e.unlisted && !e.stamp.there() && e.pending == nil
}

// told returns the stamp of e that subscribers know.
func (e *entry) told() stamp {
	if e.pending != nil {
		return e.pending.told
	}
	return e.stamp
}

// holds reports whether e is a directory, so that what is seen below is in it.
func (e *entry) holds() bool {
	return e.stamp.kind == directory && e.missed == 0
}

// holdsTold reports whether subscribers know of anything in e.
func (e *entry) holdsTold() bool {
	return e.below != nil && slices.ContainsFunc(e.below.entries, func(c *entry) bool { return c.told().there() })
}

// display returns the path of e as the protocol shows it, unquoted.
func (e *entry) display() string {
	return e.displayAs(e.stamp.kind)
}

// displayAs is display for when e is, or was, of kind k.
func (e *entry) displayAs(k kind) string {
	if k == directory {
		return e.prefix()
	}
	return e.path
}

// prefix returns what stands before the names in the directory e.
func (e *entry) prefix() string {
	if os.IsPathSeparator(e.path[len(e.path)-1]) {
		return e.path
	}
	return e.path + string(filepath.Separator)
}

// there reports whether the stamp is of something that is there.
func (s stamp) there() bool {
	return s.kind != gone
}

// same reports whether nothing that a stamp tells differs. It asks for equality,
// never for later: tar, git and rsync set older mtimes.
func (s *stamp) same(t *stamp) bool {
	return s.sec == t.sec && s.nsec == t.nsec && s.kind == t.kind && s.size == t.size &&
		s.id == t.id && (s.info == nil || t.info == nil || os.SameFile(s.info, t.info))
}

// findIDFields returns which fields of what a FileInfo's Sys points to hold the
// device and the inode, which os.SameFile compares on Unix systems, or nil. The
// two numbers take half the memory of the FileInfo.
func findIDFields() []int {
	fi, err := os.Lstat(".")
	if err != nil {
		return nil
	}
	sys := reflect.Indirect(reflect.ValueOf(fi.Sys()))
	if sys.Kind() != reflect.Struct {
		return nil
	}
	dev, hasDev := sys.Type().FieldByName("Dev")
	ino, hasIno := sys.Type().FieldByName("Ino")
	if !hasDev || !hasIno {
		return nil
	}
	return []int{dev.Index[0], ino.Index[0]}
}

// newStamp returns the stamp of what fi describes.
func newStamp(fi os.FileInfo, idFields []int) stamp {
	mtime := fi.ModTime()
	s := stamp{sec: mtime.Unix(), nsec: int32(mtime.Nanosecond()), kind: other, size: fi.Size()}
	switch {
	case fi.Mode().IsRegular():
		s.kind = file
	case fi.IsDir():
		s.kind = directory
	}
	if idFields == nil {
		os.SameFile(fi, fi) // fetches the identity on Windows, where the name may be another file's later
		s.info = fi
		return s
	}
	sys := reflect.ValueOf(fi.Sys()).Elem()
	for i, field := range idFields {
		if v := sys.Field(field); v.CanInt() {
			s.id[i] = uint64(v.Int())
		} else {
			s.id[i] = v.Uint()
		}
	}
	return s
}
