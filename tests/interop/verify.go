// Command verify checks a ledger's public face, knowing only the C2SP specifications (signed-note,
// tlog-checkpoint, tlog-tiles) and one verifier key. It shares no code with Tradewind: notes and trees are
// those of golang.org/x/mod/sumdb.
//
//	verify [-old FILE] URL VKEY
//
// URL is the ledger's, as in http://127.0.0.1:7001/log/flights.0. FILE is a checkpoint kept from before,
// which the ledger must extend. It exits with 0 if everything holds, and otherwise says what does not.
//
// Two things of x/mod are not used, because they are not C2SP's: Tile.Path (it writes the tile height into
// the path), and TreeHash(0) (it is not the hash of the empty string).
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const width = 256

// maxFile bounds what is read of any file: a full bundle of the longest entries.
const maxFile = width * (2 + 65535)

var client = http.Client{Timeout: 30 * time.Second}

func fetch(url string) ([]byte, error) {
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxFile+1))
	if err == nil && len(body) > maxFile {
		err = fmt.Errorf("%s: more than %d bytes", url, maxFile)
	}
	return body, err
}

// path is the tile's path by tlog-tiles: groups of three digits, all but the last begin with x.
func path(level string, index int64, w int) string {
	number := fmt.Sprintf("%03d", index%1000)
	for index >= 1000 {
		index /= 1000
		number = fmt.Sprintf("x%03d/%s", index%1000, number)
	}
	if w < width {
		number += fmt.Sprintf(".p/%d", w)
	}
	return "tile/" + level + "/" + number
}

type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
}

// openCheckpoint verifies a signed note and reads the checkpoint in it.
func openCheckpoint(message []byte, verifier note.Verifier) (checkpoint, error) {
	opened, err := note.Open(message, note.VerifierList(verifier))
	if err != nil {
		return checkpoint{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return checkpoint{}, fmt.Errorf("the checkpoint has fewer than three lines")
	}
	if lines[0] != verifier.Name() {
		return checkpoint{}, fmt.Errorf("origin %q is not the key's name %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != lines[1] || size < 0 {
		return checkpoint{}, fmt.Errorf("bad size %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return checkpoint{}, fmt.Errorf("bad root %q", lines[2])
	}
	result := checkpoint{origin: lines[0], size: size}
	copy(result.root[:], root)
	return result, nil
}

// ledger holds the hash tiles of one size, by level.
type ledger struct {
	url   string
	size  int64
	nodes [][]tlog.Hash
}

// widths calls f for every tile of a level with this many nodes.
func widths(nodes int64, f func(index int64, w int) error) error {
	for index := int64(0); index*width < nodes; index++ {
		w := nodes - index*width
		if w > width {
			w = width
		}
		if err := f(index, int(w)); err != nil {
			return err
		}
	}
	return nil
}

// fetchTiles reads every hash tile that the size needs.
func (l *ledger) fetchTiles() error {
	for level, nodes := 0, l.size; nodes > 0; level, nodes = level+1, nodes/width {
		var hashes []tlog.Hash
		err := widths(nodes, func(index int64, w int) error {
			name := path(strconv.Itoa(level), index, w)
			body, err := fetch(l.url + "/" + name)
			if err != nil {
				return err
			}
			if len(body) != w*tlog.HashSize {
				return fmt.Errorf("%s has %d bytes", name, len(body))
			}
			for at := 0; at < len(body); at += tlog.HashSize {
				var hash tlog.Hash
				copy(hash[:], body[at:])
				hashes = append(hashes, hash)
			}
			return nil
		})
		if err != nil {
			return err
		}
		l.nodes = append(l.nodes, hashes)
	}
	return nil
}

// node is the hash of a full subtree, put together from the tile level below or at it.
func (l *ledger) node(level int, index int64) tlog.Hash {
	if level%8 == 0 {
		return l.nodes[level/8][index]
	}
	return tlog.NodeHash(l.node(level-1, 2*index), l.node(level-1, 2*index+1))
}

// ReadHashes makes the tiles a tlog.HashReader.
func (l *ledger) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, stored := range indexes {
		level, index := tlog.SplitStoredHashIndex(stored)
		hashes[i] = l.node(level, index)
	}
	return hashes, nil
}

// checkTiles compares each tile above the leaves with the tiles below it.
func (l *ledger) checkTiles() error {
	for level := 1; level < len(l.nodes); level++ {
		for index, stated := range l.nodes[level] {
			below := l.nodes[level-1][index*width : (index+1)*width]
			if merkle(below) != stated {
				return fmt.Errorf("tile level %d: hash %d is not that of the tile below", level, index)
			}
		}
	}
	return nil
}

// checkEntries fetches every bundle and compares the entries' hashes with the leaves.
func (l *ledger) checkEntries() (int64, error) {
	var total int64
	err := widths(l.size, func(index int64, w int) error {
		name := path("entries", index, w)
		body, err := fetch(l.url + "/" + name)
		if err != nil {
			return err
		}
		for i := 0; i < w; i++ {
			if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
				return fmt.Errorf("%s ends within entry %d", name, i)
			}
			end := 2 + int(binary.BigEndian.Uint16(body))
			if tlog.RecordHash(body[2:end]) != l.nodes[0][index*width+int64(i)] {
				return fmt.Errorf("%s: entry %d does not have its leaf hash", name, i)
			}
			body = body[end:]
			total++
		}
		if len(body) != 0 {
			return fmt.Errorf("%s: %d bytes after the last entry", name, len(body))
		}
		return nil
	})
	return total, err
}

// merkle is MTH of RFC 6962, section 2.1, over leaf hashes: written out, to depend on nobody's tree code.
func merkle(leaves []tlog.Hash) tlog.Hash {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	}
	split := 1
	for split*2 < len(leaves) {
		split *= 2
	}
	return tlog.NodeHash(merkle(leaves[:split]), merkle(leaves[split:]))
}

// checkProofs makes inclusion and consistency proofs from the tiles and checks them.
func (l *ledger) checkProofs(root tlog.Hash) error {
	leaves := l.nodes[0]
	for _, n := range []int64{0, l.size / 3, l.size / 2, l.size - 1} {
		proof, err := tlog.ProveRecord(l.size, n, l)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, l.size, root, n, leaves[n]); err != nil {
			return fmt.Errorf("inclusion of entry %d: %v", n, err)
		}
	}
	for _, n := range []int64{1, l.size / 3, l.size/2 + 1, l.size} {
		if n < 1 || n > l.size {
			continue
		}
		if err := l.checkPrefix(n, merkle(leaves[:n]), root); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) checkPrefix(n int64, old, root tlog.Hash) error {
	proof, err := tlog.ProveTree(l.size, n, l)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, l.size, root, n, old); err != nil {
		return fmt.Errorf("consistency of %d with %d: %v", n, l.size, err)
	}
	return nil
}

func verify(url, vkey, old string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return fmt.Errorf("the vkey: %v", err)
	}
	message, err := fetch(url + "/checkpoint")
	if err != nil {
		return err
	}
	published, err := openCheckpoint(message, verifier)
	if err != nil {
		return fmt.Errorf("the checkpoint: %v", err)
	}
	l := &ledger{url: url, size: published.size}
	if l.size == 0 {
		if published.root != merkle(nil) {
			return fmt.Errorf("wrong root of the empty tree")
		}
		return nil
	}
	if err := l.fetchTiles(); err != nil {
		return err
	}
	if root := merkle(l.nodes[0]); root != published.root {
		return fmt.Errorf("the leaves give root %v, the checkpoint states %v", root, published.root)
	}
	root, err := tlog.TreeHash(l.size, l)
	if err != nil {
		return err
	}
	if root != published.root {
		return fmt.Errorf("the tiles give root %v, the checkpoint states %v", root, published.root)
	}
	if err := l.checkTiles(); err != nil {
		return err
	}
	entries, err := l.checkEntries()
	if err != nil {
		return err
	}
	if err := l.checkProofs(root); err != nil {
		return err
	}
	if old != "" {
		message, err := os.ReadFile(old)
		if err != nil {
			return err
		}
		before, err := openCheckpoint(message, verifier)
		if err != nil {
			return fmt.Errorf("the old checkpoint: %v", err)
		}
		if before.size > 0 {
			if err := l.checkPrefix(before.size, before.root, root); err != nil {
				return err
			}
		}
	}
	fmt.Printf("ok: %s, %d entries, root %v\n", published.origin, entries, root)
	return nil
}

func main() {
	old := flag.String("old", "", "a checkpoint from before, which the ledger must extend")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: verify [-old FILE] URL VKEY")
		os.Exit(2)
	}
	if err := verify(strings.TrimRight(flag.Arg(0), "/"), flag.Arg(1), *old); err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(1)
	}
}
