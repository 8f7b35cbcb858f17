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

// A pollConfig is the flags that pollers need, and the disk.
type pollConfig struct {
	interval, settle time.Duration
	content, openAll bool
	list             bool     // what is below a target is reported at first, too
	patterns         patterns // what trees are without
	dir              string   // what relative targets are relative to, "" for the working directory
	disk
	mountEvents *atomic.Uint64 // how often the table of mounts has changed
	eventDelay  time.Duration  // for which that may lag behind
}

// A polling is all pollers of a server, and what they share.
type polling struct {
	pollConfig
	targets []string // as typed
	logger  *log.Logger
	report  func([]change) // takes the changes of one poll; several pollers call it at a time
	mounts  mounts
	queue   chan *poller // those that wait for their next poll, in the order in which they are due; never full
	started chan *poller // for supervise, never full
	polled  chan *target // targets that have been polled once; the same
}

func newPolling(targets []string, c pollConfig, logger *log.Logger, report func([]change)) *polling {
	c.disk.fields, c.disk.seed = findStatFields(), maphash.MakeSeed()
	c.disk.madeUp = regexp.MustCompile(`^(\.nfs[[:xdigit:]]{24}|\.fuse_hidden[[:xdigit:]]{16})$`)
	most := 2 * len(targets) // pollers: one for each directory of targets, and one for each tree
	return &polling{
		pollConfig: c, targets: targets, logger: logger, report: report,
		mounts: mounts{open: c.open, events: c.mountEvents, lost: map[string]bool{}},
		queue:  make(chan *poller, most), started: make(chan *poller, most), polled: make(chan *target, len(targets)),
	}
}

// start starts to poll the targets, until ctx is done, and returns at once. It waits for no poll, because a poll may
// hang. File targets of one directory share a poller: if a stat of one hangs, so would those of the others.
func (g *polling) start(ctx context.Context) {
	var dirs []string
	byDir := map[string][]*entry{}
	for i, name := range g.targets {
		path := absolute(g.dir, name)
		dir := parentOf(path)
		if byDir[dir] == nil {
			dirs = append(dirs, dir)
		}
		byDir[dir] = append(byDir[dir], &entry{path: path, site: &site{target: &target{index: int32(i), unseen: true}}})
	}
	for _, dir := range dirs {
		label, roots := dir, byDir[dir]
		if len(roots) == 1 {
			label = g.targets[roots[0].site.target.index]
		}
		g.queue <- g.newPoller(label, roots, false, 0)
	}
	go g.takeTurns(ctx)
}

// newPoller returns a poller that supervise knows. polls is how often another one has polled the roots before.
func (g *polling) newPoller(label string, roots []*entry, tree bool, polls uint64) *poller {
	p := &poller{polling: g, label: label, roots: roots, tree: tree, turn: longPoll, heardAt: time.Now()}
	p.polls.Store(polls)
	g.started <- p
	return p
}

const (
	longPoll  = time.Millisecond // a poll that lasts so long loses the turn
	earlyPart = 16               // a poll may come a sixteenth of the interval early, which saves most wake-ups
)

// takeTurns polls whoever is due, until ctx is done or another goroutine has the turn. If a poll lasts, because a
// call hangs or a tree is large, a timer gives the turn to another goroutine. A poller whose latest poll lasted gives
// it away at once. The pause after a poll is the same for all, so the first in the queue is due first.
func (g *polling) takeTurns(ctx context.Context) {
	relief := time.AfterFunc(time.Hour, func() { g.takeTurns(ctx) })
	for relief.Stop() {
		var p *poller
		select {
		case p = <-g.queue:
		case <-ctx.Done():
			return
		}
		if early := time.Until(p.due); early > g.interval/earlyPart {
			wait(ctx, early)
		}
		if ctx.Err() != nil {
			return
		}
		relief.Reset(p.turn)
		p.pollOnce(ctx)
	}
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
		case t := <-g.polled:
			lines[t.index] = t.line
			if begun {
				g.logger.Print(t.line)
			}
		case now := <-tick:
			moves = g.check(pollers, now, ticks%2 == 0)
			ticks++
		case <-ctx.Done():
			return
		}
		if !begun && ctx.Err() == nil && (!slices.Contains(lines, "") || !moves && len(g.polled)+len(g.started) == 0) {
			begun = true
			for i, line := range lines {
				g.logger.Print(cmp.Or(line, quote(g.targets[i])+": no answer; waiting for it"))
			}
			begin()
		}
	}
}

// check logs which pollers get no answer, and which get one again. If asked for progress, it also logs how far first
// polls are. It reports whether a first poll moves. A poller that waits for its turn asks nothing.
func (g *polling) check(pollers []*poller, now time.Time, progress bool) (moves bool) {
	for _, p := range pollers {
		first, asking := p.polls.Load() == 0, p.asking.Load()
		if p.answers.Swap(0) > 0 || !asking {
			p.heardAt = now
		}
		still := now.Sub(p.heardAt)
		switch {
		case first && still < patience:
			moves = true
			if seen := p.seen.Load(); progress && asking && still == 0 && seen > 0 {
				g.logger.Printf("reading %s: %d entries so far", quote(p.label), seen)
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

// A poller polls targets again and again: file targets of one directory, or one tree. Whoever polls it has its
// entries. While calls are slow, there are helpers, and each has the entries that it visits.
type poller struct {
	*polling
	label string   // what the log calls it
	roots []*entry // the targets
	tree  bool     // there is one, which is or was a directory

	// Between polls.
	due   time.Time     // when the next poll is
	turn  time.Duration // how long that may keep the turn
	above bool          // it opens directories above the targets, which may lead over a network mount

	// Of the current poll.
	now     time.Time
	events  uint64          // how often the table of mounts had changed when it began
	moved   bool            // that had changed since the poll before
	opened  map[string]bool // directories above the targets
	helpers atomic.Int32    // goroutines that visit entries, beside the first one
	slow    atomic.Int64    // see slower

	judging   sync.Mutex // guards sites while entries in them are judged, and
	differing []*entry   // those that are seen to differ from what subscribers know, or were

	// The polling reads these while a call hangs.
	polls   atomic.Uint64 // of its targets, that are over
	asking  atomic.Bool   // a poll is under way
	answers atomic.Uint64 // how many calls have returned since supervise last looked
	seen    atomic.Uint64 // entries that are there, of those that this poll has looked at

	// Supervise's own notes.
	heardAt time.Time // when there was an answer, no poll was under way, or the poller was new
	silent  bool      // the log says that there is no answer
}

// pollOnce polls and puts p into the queue for the next time, unless its last target has left it.
func (p *poller) pollOnce(ctx context.Context) {
	p.asking.Store(true)
	p.poll(ctx)
	p.asking.Store(false)
	now := time.Now()
	if p.turn = longPoll; now.Sub(p.now) > longPoll {
		p.turn = 0
	}
	p.due = now.Add(p.interval)
	if len(p.roots) > 0 {
		p.queue <- p
	}
}

// poll looks at the targets and at all that is below them, and reports what is different.
func (p *poller) poll(ctx context.Context) {
	events := p.mountEvents.Load()
	p.now, p.moved, p.events, p.differing = time.Now(), events != p.events, events, nil
	p.seen.Store(0)
	p.slow.Store(max(p.slow.Load()-helpAbove, 0)) // slow calls of different polls are not close together
	p.openAbove()
	p.visitAll(p.roots, nil)
	p.split(ctx)
	if len(p.differing) > 0 {
		p.confirm()
		p.tell(slices.DeleteFunc(p.differing, func(e *entry) bool { return !p.isDue(e) }))
	}
	p.answered()
}

// opens reports whether e, which is of kind k and on f, is opened before it is stat'ed. A stat of a file on a network
// mount is answered from a cache that is up to a minute old, unless the client asks its server, which it does when the
// file is opened. On a local disk that would only wake other people's inotify watchers and scanners. Files on SMB are
// not opened, because Linux closes them late: a file that is opened at every poll is answered from the first open, for
// ever.
func (p *poller) opens(e *entry, k kind, f fileSystem) bool {
	switch k {
	case directory:
		return p.openAll || f.network
	case file:
		return !f.smb && (p.openAll || f.network && e.parent == nil)
	}
	return false
}

// openAbove opens the directories on network mounts that lead to the targets, also through links, if there may be any.
// If a target is not there, and with -open, it opens the last directory on the way that is there, on any mount.
func (p *poller) openAbove() {
	first := p.polls.Load() == 0 && !p.tree // else another poller has done it
	nearest := p.openAll && !p.tree || p.polls.Load() > 0 && slices.ContainsFunc(p.roots, func(e *entry) bool {
		return !e.stamp.there() || e.condition == missing
	})
	if !mayOpen || !(p.above || first || nearest) {
		return
	}
	p.above, p.opened = false, map[string]bool{}
	dir := p.lead(parentOf(p.roots[0].path)) // which is that of all of them
	p.openOnce(dir, nearest)
	for _, e := range p.roots {
		if text, err := p.linkText(e.path); err == nil {
			p.openOnce(p.lead(absolute(dir, text)), nearest)
		}
	}
}

const maxLinks = 40 // on the way to a target, as in Linux

// lead opens the directories on network mounts on the way to path, from the top, so that each is asked for the next.
// It returns the last one that is there, without links.
func (p *poller) lead(path string) (dir string) {
	dir = "./"
	if path[0] == '/' {
		dir = "/"
	}
	elements := strings.Split(path, "/")
	for links := 0; len(elements) > 0 && links < maxLinks; {
		element := elements[0]
		elements = elements[1:]
		if element == "" || element == "." {
			continue
		}
		fi, err := p.lstat(dir + element)
		p.answers.Add(1)
		switch {
		case err != nil:
			return dir
		case element == "..":
			dir = withSeparator(filepath.Join(dir, ".."))
		case fi.Mode()&fs.ModeSymlink != 0:
			text, err := p.linkText(dir + element)
			if err != nil {
				return dir
			}
			if links++; text[0] == '/' {
				dir = "/"
			}
			elements = append(strings.Split(text, "/"), elements...)
		case !fi.IsDir():
			return dir
		default:
			dir = withSeparator(dir + element)
			_, device := p.fields.stamp(fi)
			network := p.mounts.read(p.recent()).fileSystem(device).network
			p.above = p.above || network
			p.openOnce(dir, network)
		}
	}
	return dir
}

// openOnce opens dir if wanted, and if this poll has not done so.
func (p *poller) openOnce(dir string, wanted bool) {
	if wanted && !p.opened[dir] {
		p.opened[dir] = true
		p.nudge(dir, directory)
	}
}

const (
	slowCall    = 100 * time.Microsecond // a call that takes so long waits for something other than this machine
	maxHelpers  = 31                     // 32 such calls at a time take no longer than one
	sampleEvery = 8                      // of so many looks, the time of one is taken

	slowLocal = 16              // what a slow call on a local disk adds to the measure that slower returns
	helpAbove = 64              // helpers are of use if it is more than that
	mostSlow  = helpAbove + 128 // it is never more than that
)

// slower returns the new measure of slowness after a call that took so long. On a network mount one slow call brings
// helpers for the next 128 calls, because it may be the only slow one in its directory. On a local disk it takes five
// slow calls close together, because a single one may come from other work of this machine.
func slower(slow int64, took time.Duration, network bool) int64 {
	switch {
	case took <= slowCall:
		return max(slow-1, 0)
	case network:
		return mostSlow
	}
	return min(slow+slowLocal, mostSlow)
}

// isSlow reports whether calls are so slow that helpers are of use.
func (p *poller) isSlow() bool { return p.slow.Load() > helpAbove }

// visitAll visits each of es, with helpers while calls are slow.
func (p *poller) visitAll(es []*entry, above error) {
	for i, e := range es {
		if p.isSlow() {
			p.share(es[i:], above)
			return
		}
		p.visit(e, above)
	}
}

// share visits each of es. While calls are slow, helpers do so too, as long as p has fewer than maxHelpers. Each
// takes the next entry when it has visited one, so that none idles while another one waits for a call.
func (p *poller) share(es []*entry, above error) {
	var begun atomic.Int64
	var helped sync.WaitGroup
	var work func(all bool)
	work = func(all bool) {
		for all || p.isSlow() {
			n := int(begun.Add(1))
			if n > len(es) {
				return
			}
			h := p.helpers.Load()
			if n < len(es) && h < maxHelpers && p.isSlow() && p.helpers.CompareAndSwap(h, h+1) {
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
	s := sight{err: above}
	if above == nil {
		p.timedLook(e, &s)
	}
	below := p.judge(e, &s)
	if e.site == nil || e.stamp.kind == directory && !p.tree {
		return // split gives a tree a poller of its own
	}
	if e.site.leaving || e.stamp.kind != directory {
		e.forget()
	}
	p.visitAll(e.site.entries, below)
}

// timedLook is look. It times each look at a directory on a network mount, because that is opened. Of other looks it times
// some and, after a slow one, all for a while.
func (p *poller) timedLook(e *entry, s *sight) {
	opened := e.stamp.kind == directory && e.fileSystem().network
	if !opened && p.answers.Load()%sampleEvery != 0 && p.slow.Load() == 0 {
		p.look(e, s)
		return
	}
	start := time.Now()
	p.look(e, s)
	p.slow.Store(slower(p.slow.Load(), time.Since(start), e.fileSystem().network))
}

// split gives each target that turns out to be a directory its own poller, because a tree can delay its neighbours.
func (p *poller) split(ctx context.Context) {
	if p.tree {
		return
	}
	p.roots = slices.DeleteFunc(p.roots, func(e *entry) bool {
		if e.stamp.kind != directory {
			return false
		}
		tree := p.newPoller(p.shown(e, directory), []*entry{e}, true, p.polls.Load())
		tree.above = p.above
		go tree.pollOnce(ctx)
		return true
	})
}

// A sight is what one look at an entry found.
type sight struct {
	err    error    // why the stat failed or, if stamp is valid, why reading what is inside did
	valid  bool     // the stat succeeded
	stamp  stamp    // what is there, if valid
	path   string   // by which a target was found
	ground *ground  // what a directory or a target stands on, if that was asked again
	doubt  *doubt   // why an equal stamp proves nothing yet, or nil
	sum    uint64   // of the content, if there is a doubt
	sumErr error    // why there is none
	listed bool     // names is what a directory holds
	names  []string // in order
}

// errKept is why an entry stays as it was, when the log has the reason already.
var errKept = errors.New("kept as it was")

// look asks the disk what e is now. What that means for e is for judge to say.
func (p *poller) look(e *entry, s *sight) {
	g := e.guard()
	if g != nil && g.lost {
		p.nudge(e.path, directory) // an automount is mounted when it is opened
		if p.isLost(e, p.recent()) {
			s.err = errKept
			return
		}
	}
	if e.unlisted && (g == nil || len(g.points) == 0) {
		s.err = fs.ErrNotExist // whatever a stat says: where case is ignored, it finds a renamed file
		return
	}
	f := e.fileSystem()
	if p.opens(e, e.stamp.kind, f) {
		p.nudge(e.path, e.stamp.kind)
	}
	device := p.statFor(e, s)
	another := s.valid && (s.stamp.ino != e.stamp.ino || e.site != nil && e.site.device != device)
	if (another || absent(s.err)) && e.stamp.there() && p.isLost(e, p.now) {
		*s = sight{err: errKept}
	}
	if !s.valid {
		return
	}
	if (e.parent == nil || s.stamp.kind == directory) && (another || p.moved || g == nil || g.shortTables > 0) {
		s.ground = p.groundOf(e, s, device)
		f = s.ground.fileSystem
	}
	if s.stamp.kind == file && e.stamp.kind != file && p.opens(e, file, f) {
		p.nudge(s.path, file) // so that the first look is fresh, too
		p.statFor(e, s)
	}
	if s.valid {
		p.lookInside(e, s, f)
	}
}

// statFor stats e for s. It returns the device.
func (p *poller) statFor(e *entry, s *sight) (device uint64) {
	var fi os.FileInfo
	if s.path = e.path; e.parent == nil {
		s.path, fi, s.err = p.statTarget(e)
	} else {
		fi, s.err = p.statBelow(e)
	}
	p.answers.Add(1)
	if s.valid = s.err == nil; !s.valid {
		return 0
	}
	s.stamp, device = p.fields.stamp(fi)
	if e.stamp.kind == file && s.stamp.kind == file && p.content && e.fileSystem().proc && s.stamp.size <= maxHashed {
		s.stamp = e.stamp // which is made up at each look, so that the content decides
	}
	return device
}

// statTarget stats a target, and follows links. It returns the path that was found: a relative target may be in a
// working directory whose own path leads through a directory that may not be searched.
func (p *poller) statTarget(e *entry) (path string, fi os.FileInfo, err error) {
	typed := p.targets[e.site.target.index]
	if path = e.path; path == typed {
		path = absolute(p.dir, typed)
	}
	fi, err = p.stat(path)
	if path != typed && errors.Is(err, fs.ErrPermission) {
		if near, nearErr := p.stat(typed); nearErr == nil {
			return typed, near, nil
		}
	}
	return path, fi, err
}

// statBelow stats an entry of a tree. It follows links, but none to a directory, which may loop. What is excluded by
// its kind is as absent.
func (p *poller) statBelow(e *entry) (os.FileInfo, error) {
	fi, err := p.lstat(e.path)
	if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		to, linkErr := p.stat(e.path) // a link to nothing is as absent
		switch {
		case linkErr != nil && e.stamp.kind == directory:
			err = fs.ErrNotExist // wherever the link leads, it has replaced the directory
		case linkErr != nil:
			err = linkErr
		case !to.IsDir():
			fi = to
		}
	}
	if err == nil && kindOf(fi) != e.stamp.kind && p.patterns.exclude(p.below(e.path), fi.IsDir()) {
		err = fs.ErrNotExist
	}
	return fi, err
}

// below returns the part of path that patterns are for: what follows the target, with slashes.
func (p *poller) below(path string) string {
	return filepath.ToSlash(path[len(withSeparator(p.roots[0].path)):])
}

// comparesAll reports whether -content has the contents on f compared at every poll.
func (p *poller) comparesAll(f fileSystem) bool { return p.content && !f.smb }

// A directory that seems to be as it was is read again after about so many polls, because some file systems, such as FAT,
// do not keep the times of directories. The second number is for those that do.
const rereadEvery, rereadDated = 16, 64

// lookInside reads what is in e if the stamp in s does not tell: the content of a file, or the names in a directory.
func (p *poller) lookInside(e *entry, s *sight, f fileSystem) {
	always, same, every := p.comparesAll(f), s.stamp.same(&e.stamp), uint64(rereadEvery)
	if f.dated {
		every = rereadDated
	}
	if s.doubt = e.doubt; !same {
		s.doubt = doubtOf(e.stamp, s.stamp, p.now, time.Now(), always)
	}
	switch {
	case s.stamp.kind == file && s.doubt != nil:
		s.sum, s.sumErr = p.sum(s.path, s.stamp, !f.proc, &p.answers)
		if p.content && !absent(s.sumErr) { // if it is absent, the next stamp will tell
			s.err = s.sumErr
		}
	case s.stamp.kind != directory || !p.tree:
	case !same, s.doubt != nil, e.condition == failing, e.site == nil, e.site.stale,
		(p.polls.Load()+p.seen.Load())%every == 0:
		var skip func(fs.DirEntry) bool
		if len(p.patterns) > 0 {
			below := p.below(withSeparator(e.path))
			skip = func(d fs.DirEntry) bool { return p.patterns.exclude(below+d.Name(), d.IsDir()) }
		}
		s.names, s.err = p.names(e.path, e.condition == failing, skip, &p.answers)
		if absent(s.err) { // a directory that was removed while something is mounted from it, or since the stat
			s.err = nil
		}
		s.listed = s.err == nil
	}
}

// judge updates e with what a look at it found. It returns the error that stands for looks at all that is in e, or nil
// if each is to be looked at. If the directory of e turns out not to be searchable, judge marks the directory as failing
// and keeps e as it was.
func (p *poller) judge(e *entry, s *sight) (below error) {
	if s.valid {
		p.seen.Add(1)
	}
	plain := e.site == nil && e.pending == nil && e.doubt == nil && e.condition == sure
	if s.err == nil && plain && s.doubt == nil && s.stamp.same(&e.stamp) {
		e.stamp = s.stamp
		return nil // most files are as they were, and need no lock
	}
	dir, unsearchable := e.parent, error(nil)
	if dir != nil && failed(s.err) && s.err != errKept && e.condition != failing {
		unsearchable = p.search(dir.path)
	}
	p.judging.Lock()
	defer p.judging.Unlock()
	if failed(unsearchable) && dir.condition != failing {
		dir.condition = failing
		p.logTrouble(dir, unsearchable, true)
	}
	if dir != nil && dir.condition == failing {
		s = &sight{err: errKept}
	}
	p.take(e, s)
	if absent(s.err) && dir != nil && (e.stamp.there() || e.unlisted) {
		dir.site.stale = true
	}
	leaves := e.stamp.kind == directory && !p.tree // for a poller of its own
	seen := s.valid || absent(s.err) && e.condition == sure
	if e.pending != nil && !leaves && (seen || e.pending.certain) {
		p.differing = append(p.differing, e)
	}
	switch {
	case failed(s.err):
		return errKept
	case !e.holds():
		return fs.ErrNotExist
	}
	return nil
}

// take makes s what is known of e.
func (p *poller) take(e *entry, s *sight) {
	known := e.stamp.there() && (e.stamp.kind != directory || e.site.read) // there is a state of e, and of what is in it
	was := e.condition
	next, vanished := was.next(s.err, e.stamp.there())
	e.condition = next
	switch {
	case vanished:
		p.note(e, stamp{}, nil)
		if e.site != nil {
			e.site.read = false
		}
	case s.valid:
		e.rename(s.path)
		p.note(e, s.stamp, s.doubt)
		p.takeInside(e, s)
	}
	if (was == failing) != (next == failing) {
		p.logTrouble(e, s.err, known)
	}
}

// note makes st the stamp of e, and the difference pending if subscribers are to know of it. A target is news when
// it is seen first, because the server may not have waited for it; what is below it then, only for -list.
func (p *poller) note(e *entry, st stamp, d *doubt) {
	same, u := st.same(&e.stamp), e.pending
	stays := e.stamp.kind == directory && st.kind == directory // what it holds is reported instead
	quiet := e.parent != nil && p.roots[0].site.target.unseen && !p.list
	switch {
	case same:
		d = e.doubt
	case u != nil && !u.certain && st.same(&u.told):
		d, e.pending = u.doubt, nil // in between, something else was seen where its mount had gone
	case !stays && !quiet:
		e.differs(e.doubt)
	}
	if e.site == nil && st.kind == directory {
		e.site = &site{}
	}
	if !same && e.site != nil {
		e.site.stale = true
	}
	e.stamp, e.doubt = st, d
}

// takeInside takes in what a look found in e, beside its stamp.
func (p *poller) takeInside(e *entry, s *sight) {
	if s.ground != nil {
		p.above = p.above || e.parent == nil && e.site.device != 0 // another way may lead there now
		e.site.ground = *s.ground
	}
	if s.listed {
		e.list(s.names)
	}
	d := e.doubt
	if d == nil || s.doubt == nil {
		return // a doubt that came back has its look next time
	}
	before, u := *d, e.pending
	switch differs := s.stamp.kind == file && d.take(s.sum, s.sumErr); {
	case differs && u != nil && !u.certain && u.doubt != nil && u.doubt.hash == s.sum && s.stamp.same(&u.told):
		e.pending = nil // as in note
	case differs:
		e.differs(&before)
	}
	always := s.stamp.kind == file && p.comparesAll(e.fileSystem())
	if !always && time.Now().After(d.until) && (s.sumErr == nil || absent(s.sumErr) || errors.Is(s.sumErr, fs.ErrPermission)) {
		e.doubt = nil
	}
}

// logTrouble logs that looks at e begin to fail because of err, or that they do not any more. known tells whether
// there is a last state to keep.
func (p *poller) logTrouble(e *entry, err error, known bool) {
	text := "readable again"
	switch {
	case e.condition == failing && known:
		text = reason(err) + "; keeping its last state"
	case e.condition == failing:
		text = reason(err) + "; waiting for it"
	case err != nil:
		text = "not there"
	}
	p.logger.Printf("%s: %s", quote(p.shown(e, e.stamp.kind)), text)
}

// reason returns what err says, without the operation and the path, and in words.
func reason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if number, nameless := strings.CutPrefix(err.Error(), "errno "); nameless {
		return "the file system fails with an unknown error, " + number
	}
	return err.Error()
}

// answered notes which targets have answered, and passes on what the log is to say of their first poll.
func (p *poller) answered() {
	first := p.polls.Load() == 0
	for _, e := range p.roots {
		t := e.site.target
		t.unseen = t.unseen && e.condition == failing
		if !first {
			continue
		}
		t.line = "waiting for "
		if e.stamp.there() {
			t.line = "watching "
		}
		t.line += quote(p.shown(e, e.stamp.kind))
		if e.stamp.kind == directory {
			t.line += fmt.Sprintf(" (%d entries)", p.seen.Load())
		}
		p.polled <- t
	}
	p.polls.Add(1)
}

// recent is since when what is known of mounts is good enough for a look. If the table changes within an interval
// without an event, the end of the poll, or the next one, finds out.
func (p *poller) recent() time.Time { return p.now.Add(-p.interval) }

// groundOf returns what e stands on, which was found as s on device.
func (p *poller) groundOf(e *entry, s *sight, device uint64) *ground {
	t := p.mounts.read(p.now)
	next := &ground{device: device, fileSystem: t.fileSystem(device)}
	if len(t.counts) == 0 { // it cannot be read, or there is none on this system
		if e.site != nil {
			next.fileSystem, next.guard = e.site.fileSystem, e.site.guard
		}
		return next
	}
	path, err := p.resolved(e, s.path)
	switch top := e.parent == nil; {
	case err != nil:
	case top && s.stamp.kind != directory:
		next.guard = t.guard(path, filepath.Dir(path), top) // a file that is a mount point guards nothing
	default:
		next.guard = t.guard(path, path, top)
	}
	if old := e.guard(); old != nil && e.isKept() {
		next.guard = old.heir(next.guard, err == nil, p.mountEvents.Load() == p.events)
	}
	return next
}

// resolved returns the path by which e was found, without links, as mounts are known.
func (p *poller) resolved(e *entry, path string) (string, error) {
	if e.parent != nil {
		root := p.roots[0]
		return filepath.Join(root.guard().path, e.path[len(withSeparator(root.path)):]), nil
	}
	path, err := filepath.EvalSymlinks(path)
	if err == nil && !filepath.IsAbs(path) {
		path = filepath.Join(p.dir, path)
	}
	return path, err
}

// isLost reports whether a mount that e was on is gone, by a table that is no older than since. A mount is gone if fewer
// file systems than before are mounted at its mount point, the directory of the mount point is there, the path of e
// leads there or nowhere, and there is a state of e to keep. The log says when that begins and when it ends. While the
// table cannot be read, every mount counts as gone, so that nothing is removed.
func (p *poller) isLost(e *entry, since time.Time) bool {
	g := e.guard()
	if g == nil || len(g.points) == 0 {
		return false
	}
	path, err := p.resolved(e, e.path)
	t := p.mounts.read(since)
	p.judging.Lock() // a helper may find just now that a directory on the way cannot be searched
	within := e.isWithin()
	p.judging.Unlock()
	g.lost = false
	for i := range g.points {
		m := &g.points[i]
		fewer, was := t.counts[m.path] < m.count, m.lost
		there := fewer && within && e.isKept() && (t.triggered(m.path) || p.isDirectory(m.path))
		m.lost = there && (err != nil || isBelow(path, m.path))
		g.lost = g.lost || m.lost
		if m.lost == was || !p.mounts.spell(m.path, m.lost) {
			continue
		}
		text := "not there"
		switch {
		case m.lost:
			text = "not mounted; keeping its last state"
		case !fewer:
			text = "mounted again"
		}
		p.logger.Printf("%s: %s", quote(withSeparator(m.path)), text)
	}
	return g.lost
}

// confirm holds a difference for at most so many polls, and so long. On a machine whose mounts change all the time, or
// where each poll has automount mount something, changes are reported late then, but they are reported.
const maxHolds, maxHold = 16, 4 * time.Second

// confirm decides which differences are certain. If a mount that an entry is on is gone by now, or mounts have
// changed during this poll, the poll may have seen what lies below the mount point.
func (p *poller) confirm() {
	now, lost := time.Now(), map[*entry]bool{} // by the entries whose guards have been asked
	moved := sync.OnceValue(func() bool {
		time.Sleep(p.eventDelay)
		return p.mountEvents.Load() != p.events
	})
	for _, e := range p.differing {
		d, guarded, unmounted := e.pending, false, false
		for at := e; at != nil && !d.certain; at = at.parent {
			if at.site == nil || len(at.site.points) == 0 {
				continue
			}
			if _, asked := lost[at]; !asked {
				lost[at] = p.isLost(at, now)
			}
			guarded, unmounted = true, unmounted || lost[at]
		}
		switch unseen := p.rootOf(e).site.target.unseen; {
		case unmounted && !unseen:
		case guarded && !unseen && d.holds < maxHolds && p.now.Sub(d.first) < maxHold && moved():
			d.holds++
		default:
			d.certain = true
		}
	}
}

// rootOf returns the target that e is, or is below.
func (p *poller) rootOf(e *entry) *entry {
	if e.parent == nil {
		return e
	}
	return p.roots[0]
}

const maxSettles = 10 // settle durations, after which even what never keeps still is reported

// isDue reports whether there is a difference of e that is to be reported now. If this poll missed e, the next one
// will tell whether it is there. What a target is at first does not wait.
func (p *poller) isDue(e *entry) bool {
	d := e.pending
	return d != nil && d.certain && e.condition != missing && (p.settle == 0 || p.rootOf(e).site.target.unseen ||
		p.now.Sub(d.last()) >= p.settle || p.now.Sub(d.first)/maxSettles >= p.settle)
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
	return change{path, p.rootOf(e).site.target.index, e.parent == nil, !d.told.there(), st, d.last().UnixMilli()}
}

// shown returns the path of e as the protocol shows it, unquoted, when e is of kind k.
func (p *poller) shown(e *entry, k kind) string {
	root := p.rootOf(e)
	path := p.targets[root.site.target.index]
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

// An entry is a path that a poller knows. There can be a million, so it is small. Only the goroutine that visits it
// changes it.
type entry struct {
	path      string // what stat is given
	parent    *entry // nil for a target
	stamp     stamp
	site      *site    // of a target, and of what is or was a directory
	pending   *pending // what subscribers have not been told yet, or nil
	doubt     *doubt   // why an equal stamp proves nothing yet, or nil
	condition condition
	unlisted  bool // its name was not there when its directory was last read
}

// A condition is what the latest look at an entry says of its stamp.
type condition uint8

const (
	sure    condition = iota // it is what is there
	missing                  // it was not there; if it is not at the next look either, it is gone
	failing                  // that is not known, as the log says, and the stamp is kept
)

// next returns the condition after a look that ended with err, and whether the entry, which was there or not before,
// has vanished. Only two looks in a row that miss it say so, so that an editor's unlink and create is one change.
func (c condition) next(err error, there bool) (next condition, vanished bool) {
	switch {
	case err == errKept:
		return c, false
	case failed(err):
		return failing, false
	case err == nil || !there:
		return sure, false
	case c == missing:
		return sure, true
	}
	return missing, false
}

// absent reports whether err says that there is nothing. ERROR_BAD_NETPATH does not, though it is ErrNotExist to Go.
func absent(err error) bool {
	const badNetPath = syscall.Errno(53) // on Windows: the file server is gone
	return errors.Is(err, fs.ErrNotExist) && !errors.Is(err, badNetPath) || errors.Is(err, syscall.ENOTDIR)
}

// failed reports whether err leaves it open what is there.
func failed(err error) bool { return err != nil && !absent(err) }

// A site is what is kept of a directory or a target, beside its entry.
type site struct {
	entries []*entry // what is known to be in it, in the order of names, so that polls go the same way
	stale   bool     // it must be read again
	read    bool     // it has been read since it came to be
	leaving bool     // some of its entries are not listed any more
	ground
	target *target // nil in a tree
}

// A ground is what a directory or a target stands on.
type ground struct {
	device uint64 // 0 where the system does not tell it
	fileSystem
	guard
}

// A target is what a poller keeps of a target beside its site. Supervise reads index and line.
type target struct {
	index  int32
	line   string // what the log is to say of it after its first poll
	unseen bool   // it has not answered yet, so what is there is not news
}

// guard returns the mounts that e stands for, those that a target is on, or one at e in a tree, or nil.
func (e *entry) guard() *guard {
	if e.site == nil {
		return nil
	}
	return &e.site.guard
}

// fileSystem returns what e is on, as far as is known: a file in a tree is on what its directory is on.
func (e *entry) fileSystem() fileSystem {
	if e.site == nil {
		return e.parent.site.fileSystem
	}
	return e.site.fileSystem
}

// rename changes the path of e and of all that is in it.
func (e *entry) rename(path string) {
	if path == e.path {
		return
	}
	if e.site != nil {
		for _, c := range e.site.entries {
			c.rename(withSeparator(path) + c.path[len(withSeparator(e.path)):])
		}
	}
	e.path = path
}

// list compares names, which are those in the directory e, with what is known to be there, and adds what is new.
func (e *entry) list(names []string) {
	known, prefix, i := e.site.entries, withSeparator(e.path), 0
	for _, c := range known {
		c.unlisted = true
	}
	for _, name := range names {
		for i < len(known) && known[i].path[len(prefix):] < name {
			i++
		}
		if i < len(known) && known[i].path[len(prefix):] == name {
			known[i].unlisted = false
		} else {
			e.site.entries = append(e.site.entries, &entry{path: prefix + name, parent: e})
		}
	}
	if len(e.site.entries) > len(known) {
		slices.SortFunc(e.site.entries, func(a, b *entry) int { return cmp.Compare(a.path, b.path) })
	}
	e.site.stale, e.site.read = false, true
	e.site.leaving = slices.ContainsFunc(e.site.entries, (*entry).isUnlisted)
}

func (e *entry) isUnlisted() bool { return e.unlisted }

// forget drops the entries in e that are gone, when everybody is told. A link to nothing is listed, and stays.
func (e *entry) forget() {
	e.site.entries = slices.DeleteFunc(e.site.entries, func(c *entry) bool {
		return (c.unlisted || e.stamp.kind != directory) && !c.stamp.there() && c.pending == nil
	})
	e.site.leaving = slices.ContainsFunc(e.site.entries, (*entry).isUnlisted)
}

// A pending difference waits to be certain, to settle, and for its parent's turn. With the size of an entry, 100,000
// of them for -list would be allocated between entries and leave 10 MB of holes.
type pending struct {
	told    stamp  // what subscribers know
	doubt   *doubt // about that
	first   time.Time
	lasts   time.Duration // from first until it was last seen to differ
	holds   uint8         // polls that have held it, because mounts changed
	certain bool          // what was seen last was no matter of mounts
}

// last returns when it was last seen to differ.
func (d *pending) last() time.Time { return d.first.Add(d.lasts) }

// differs notes that e is now seen to be something else than before, about which there was a doubt or nil.
func (e *entry) differs(before *doubt) {
	now := time.Now()
	if e.pending == nil {
		e.pending = &pending{told: e.stamp, doubt: before, first: now}
	}
	e.pending.lasts, e.pending.certain = now.Sub(e.pending.first), false
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
func (e *entry) holds() bool { return e.stamp.kind == directory && e.condition != missing }

// isKept reports whether there is a state of e to keep when its mount goes: what subscribers know, or are about to.
func (e *entry) isKept() bool { return e.told().there() || e.stamp.there() && e.pending.certain }

// isWithin reports whether the directories that lead to e from its target are there.
func (e *entry) isWithin() bool { return e.parent == nil || e.parent.holds() && e.parent.isWithin() }

// holdsTold reports whether subscribers know of anything in e.
func (e *entry) holdsTold() bool {
	return e.site != nil && slices.ContainsFunc(e.site.entries, func(c *entry) bool { return c.told().there() })
}

// A doubt lasts while a second write could leave the same stamp, because the clock that mtimes are taken from moves
// in steps. Git calls such an entry racily clean.
type doubt struct {
	until   time.Time
	checked bool   // there was a look at the content
	hash    uint64 // of it, 0 if it could not be read at first
}

const (
	maxHashed        = 1 << 20               // the size of the largest file whose content is compared
	wholeSecondGrain = 2 * time.Second       // the step of FAT's clock; others without a fraction have less
	clockSkew        = 24 * time.Hour        // how far such a clock, another machine's or in local time, is off
	fineGrain        = 20 * time.Millisecond // more than the kernel's tick, with which other clocks move
)

// doubtOf returns the doubt about the stamp st, which has followed before and was taken between from and to: nil if
// any write will change it or, unless always is set, its content need not be compared. An mtime in whole seconds says
// nothing of the clock when the entry is seen first and its ctime has a fraction: somebody set it, as tar does. The
// ctime of a directory whose mtime was set tells when something last changed in it.
func doubtOf(before, st stamp, from, to time.Time, always bool) *doubt {
	grain, margin := fineGrain, fineGrain
	if st.nsec == 0 && (before.there() || st.ctime%1e9 == 0) {
		grain, margin = wholeSecondGrain, wholeSecondGrain+clockSkew
	}
	isYoung := func(t time.Time) bool { return !t.Before(from.Add(-margin)) && !t.After(to.Add(margin)) }
	young := isYoung(time.Unix(st.sec, int64(st.nsec))) || st.kind == directory && isYoung(time.Unix(0, st.ctime))
	isHashed := st.kind == file && st.size <= maxHashed && (always || young && st.size > 0)
	if isHashed || st.kind == directory && young {
		return &doubt{until: to.Add(grain)}
	}
	return nil
}

// take takes in the hash of the content, or why there is none. It reports whether the content differs.
func (d *doubt) take(hash uint64, err error) (differs bool) {
	if err != nil && d.checked {
		return false
	}
	differs = d.checked && d.hash != hash
	d.hash, d.checked = hash, true
	return differs
}

// A disk is where stamps, contents and names come from. It knows no entries. The calls are what tests replace.
type disk struct {
	stat, lstat func(string) (os.FileInfo, error)
	open        func(string) (*os.File, error)
	readlink    func(string) (string, error)

	fields statFields
	seed   maphash.Seed
	madeUp *regexp.Regexp // names that NFS and FUSE clients give to a file that was deleted while open
}

// nudge opens and closes what was last seen to be of kind k, a regular file or a directory. With the separator at the
// end of a directory's name the open fails, and does not block, if it is a FIFO by now; and NFS asks its server, which
// it does not with a dot behind it. A failure says nothing.
func (d *disk) nudge(name string, k kind) {
	if k == directory {
		name = withSeparator(name)
	}
	if mayOpen {
		f, _ := d.open(name)
		f.Close() // which only returns an error if f is nil
	}
}

// linkText returns what the link at path says. That it says nothing, as on a broken FUSE file system, is an error.
func (d *disk) linkText(path string) (string, error) {
	text, err := d.readlink(path)
	if err == nil && text == "" {
		err = fs.ErrInvalid
	}
	return text, err
}

// search returns why the directory cannot be searched, or nil if it can.
func (d *disk) search(dir string) error {
	_, err := d.lstat(withSeparator(dir) + ".")
	return err
}

// isDirectory reports whether there is a directory at path.
func (d *disk) isDirectory(path string) bool {
	fi, err := d.lstat(path)
	return err == nil && fi.IsDir()
}

// errMoved is why there is no content of what the stamp is of: what was opened is not the same any more.
var errMoved = fmt.Errorf("changed since its stat: %w", fs.ErrNotExist)

// sum returns a hash of the content of the file at path, and adds to answers for each piece of it. Only a regular file
// is read, because a FIFO or a device that has replaced it would block. If kept says that the file system keeps
// mtimes, and the stamp is not st after the reading, that is an error, and no change yet.
func (d *disk) sum(path string, st stamp, kept bool, answers *atomic.Uint64) (uint64, error) {
	f, err := d.open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return 0, cmp.Or(err, errMoved)
	}
	var h maphash.Hash
	h.SetSeed(d.seed)
	if st.size == 0 { // a file like /proc/kmsg, which waits for more; a slow file server may take its time
		f.SetReadDeadline(time.Now().Add(time.Second))
	}
	buf := make([]byte, min(st.size+512, 32<<10)) // a file in /proc has more than its size
	for r := io.LimitReader(f, maxHashed); err == nil; {
		var n int
		n, err = r.Read(buf)
		h.Write(buf[:n])
		answers.Add(1)
	}
	fi, statErr := f.Stat()
	if err != io.EOF || statErr != nil {
		return 0, cmp.Or(statErr, err)
	}
	now, _ := d.fields.stamp(fi)
	now.ino = st.ino // an open file has another number on some file systems
	if kept && !now.same(&st) {
		return 0, errMoved
	}
	return h.Sum64(), nil
}

// names returns the names in the directory, in order, and adds to answers for each piece of them. It leaves out what
// skip, if it is not nil, says of the name and kind. With search it also asks whether the directory can be searched.
func (d *disk) names(dir string, search bool, skip func(fs.DirEntry) bool, answers *atomic.Uint64) (names []string, err error) {
	f, err := d.open(withSeparator(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if search {
		err = d.search(dir)
	}
	const some = 4096
	for err == nil && skip == nil {
		var more []string
		more, err = f.Readdirnames(some)
		names = append(names, more...)
		answers.Add(1)
	}
	for err == nil && skip != nil {
		var more []fs.DirEntry
		more, err = f.ReadDir(some)
		for _, entry := range slices.DeleteFunc(more, skip) {
			names = append(names, entry.Name())
		}
		answers.Add(1)
	}
	if err != io.EOF {
		return nil, err
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), d.isMadeUp), nil // a directory that changes may list a name twice
}

// isMadeUp reports whether a client of NFS or FUSE has given name to a file that was deleted while it was open.
func (d *disk) isMadeUp(name string) bool { return name[0] == '.' && d.madeUp.MatchString(name) }

// A fileSystem is what matters of the type of a file system.
type fileSystem struct {
	network bool // another machine or program can change what is on it
	smb     bool // and that speaks SMB
	proc    bool // the kernel makes up what is on it, and an mtime at each look
	dated   bool // the times of a directory on it tell that what is in it has changed
}

// mounts is the table of mounts, as Linux tells it in /proc/self/mountinfo. Elsewhere every device counts as local,
// and no mount is known. Pollers ask it at any time; nothing but the table is read while it is locked.
type mounts struct {
	open   func(string) (*os.File, error)
	events *atomic.Uint64 // how often the table has changed

	mu    sync.Mutex
	file  *os.File // stays open, so that a want of descriptors does not matter
	table *mountTable
	lost  map[string]bool // mount points that the log says are not mounted
}

// A mountTable is the table as it was at a time. Nobody changes it.
type mountTable struct {
	at     time.Time
	events uint64
	counts map[string]int    // mount points, and how many file systems are mounted there; none if it cannot be read
	auto   []string          // mount points of autofs, which mounts something there or below when it is asked for
	types  map[string]string // of file systems, by major:minor
}

const mountinfo = "/proc/self/mountinfo"

// eventDelay is more than it takes to wake up the reader of mountinfo, also on a machine that is busy.
const eventDelay = 10 * time.Millisecond

// countMountEvents has mountEvents count the changes of the table of mounts until ctx is done. A poll of the file wakes
// up its reader then, and all that Read is told to do is to go on waiting.
func (c *pollConfig) countMountEvents(ctx context.Context) {
	f, err := c.open(mountinfo)
	if err != nil {
		return
	}
	c.eventDelay = eventDelay
	context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		if conn, err := f.SyscallConn(); err == nil {
			conn.Read(func(uintptr) bool {
				c.mountEvents.Add(1)
				return false
			})
		}
	}()
}

// read returns the table as it is at since or later, and after the latest event. The lines of the file look like
//
//	36 35 98:0 /root /mount/point rw,noatime shared:1 - ext3 /dev/root rw
func (m *mounts) read(since time.Time) *mountTable {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events.Load()
	if m.table != nil && !m.table.at.Before(since) && m.table.events == events {
		return m.table
	}
	m.table = &mountTable{at: time.Now(), events: events, counts: map[string]int{}, types: map[string]string{}}
	if m.file == nil {
		m.file, _ = m.open(mountinfo)
	}
	text, again := m.text(), m.text()
	for tries := 0; text != again && tries < maxTries; tries++ { // it is read in pieces, between which it may change
		text, again = again, m.text()
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(text) {
		mount, source, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(source, " ")
		fields := strings.Split(mount, " ")
		if len(fields) < 5 {
			continue
		}
		point := unescape.Replace(fields[4])
		m.table.types[fields[2]] = kind
		if kind == "autofs" {
			m.table.auto = append(m.table.auto, point)
		} else {
			m.table.counts[point]++
		}
	}
	return m.table
}

const maxTries = 8 // to read the table without a change in between

// text returns what is in the file, or nothing if it cannot be read.
func (m *mounts) text() string {
	m.file.Seek(0, io.SeekStart)
	text, err := io.ReadAll(m.file)
	if err != nil { // also if it could not be opened
		return ""
	}
	return string(text)
}

// spell notes that a mount point is lost, or is not any more, and reports whether that is news for the log.
func (m *mounts) spell(point string, lost bool) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news = m.lost[point] != lost
	if lost {
		m.lost[point] = true
	} else {
		delete(m.lost, point)
	}
	return news
}

// fileSystem returns what the file system on a device is. A device that is not listed (btrfs, overlay) is local.
func (t *mountTable) fileSystem(device uint64) fileSystem {
	number := fmt.Sprintf("%d:%d", device>>8&0xfff|device>>32&^0xfff, device&0xff|device>>12&^0xff) // of st_dev
	kind, _, _ := strings.Cut(t.types[number], ".")                                                 // fuse.sshfs counts as fuse
	others := "9p afs ceph coda fuse lustre nfs nfs4 ocfs2 orangefs prl_fs vboxsf virtiofs vmhgfs"
	is := func(kinds string) bool { return slices.Contains(strings.Fields(kinds), kind) }
	smb := is("cifs smb3 smbfs")
	return fileSystem{smb || is(others), smb, is("proc sysfs"), is("btrfs ext2 ext3 ext4 f2fs overlay tmpfs xfs zfs")}
}

// A guard is the mounts that keep what is below them from being told as removed when they go: those that a target is
// on, or a mount point in a tree.
type guard struct {
	path        string // with links resolved
	points      []mountCount
	lost        bool  // one of them is not mounted
	shortTables uint8 // how many tables in a row have had fewer of them
}

// A mountCount is a mount point, and how many file systems were mounted there when all was well.
type mountCount struct {
	path  string
	count int
	lost  bool // there are fewer now
}

// guard returns the guard of path: the mount point at from and, if asked for all, those above it. It leaves out the
// root directory, which is never unmounted.
func (t *mountTable) guard(path, from string, all bool) guard {
	g := guard{path: path}
	for at := from; len(at) > 1; at = filepath.Dir(at) { // to / or, without a working directory, to .
		if n := t.counts[at]; n > 0 {
			g.points = append(g.points, mountCount{path: at, count: n})
		}
		if !all {
			break
		}
	}
	return g
}

// heir returns the guard that replaces g if the table has next; found tells whether the path was found by then, and quiet
// whether mounts have not changed during the poll. If next lacks a mount, the mount may have gone after the stat, which
// would have said so, and heir keeps g. It accepts next after maxHolds such tables in a row while mounts were quiet.
func (g guard) heir(next guard, found, quiet bool) guard {
	switch {
	case !found:
		return g
	case g.path != next.path, !fewerAt(next.points, g.points), quiet && g.shortTables == maxHolds:
		return next
	case quiet:
		g.shortTables++
	default:
		g.shortTables = 0
	}
	return g
}

// fewerAt reports whether points has fewer file systems than before at one of the mount points.
func fewerAt(points, before []mountCount) bool {
	return slices.ContainsFunc(before, func(b mountCount) bool {
		return !slices.ContainsFunc(points, func(m mountCount) bool { return m.path == b.path && m.count >= b.count })
	})
}

// triggered reports whether what is mounted at point is mounted by autofs. When that fails, point may be missing.
func (t *mountTable) triggered(point string) bool {
	return slices.ContainsFunc(t.auto, func(auto string) bool { return isBelow(point, auto) })
}

// isBelow reports whether path is dir or below it.
func isBelow(path, dir string) bool { return strings.HasPrefix(path+"/", dir+"/") }

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
// forgotten it, and a ctime alone moves with mode, owner and link count. A directory is read again if one of them
// differs, which tells nobody anything false, and finds what was created by one who then restored the mtime.
func (s *stamp) same(t *stamp) bool {
	ino, ctime := s.ino == t.ino, s.ctime == t.ctime
	return s.kind == t.kind && s.sec == t.sec && s.nsec == t.nsec && s.size == t.size &&
		(ino && ctime || s.kind != directory && (ino || ctime))
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
	s = stamp{sec: mtime.Unix(), nsec: int32(mtime.Nanosecond()), kind: kindOf(fi), size: fi.Size()}
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

func kindOf(fi os.FileInfo) kind {
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		return file
	case mode.IsDir():
		return directory
	}
	return other
}
