//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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
		mirror.Process.Signal(syscall.SIGUSR1)
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
