package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	"cyclecap/data/photo"
	"cyclecap/internal/atomicfile"
	"cyclecap/nets/clipcap"
	"cyclecap/pipeline"
	"cyclecap/torch/distributed"

	"github.com/urfave/cli/v2"
)

// captionPart is the largest number of photos in a part that is no tar, unless a batch has more. The
// processes give their captions to rank 0 part by part.
const captionPart = 256

// captionInput returns photos and tars, cut into parts.
func captionInput(paths []string, batch int) *inputs {
	in := &inputs{kind: "image", paths: paths}
	in.cut(batch, captionPart)
	return in
}

// all returns the photos of all parts, and their number or -1.
func (in *inputs) all() (iter.Seq[photo.Source], int) {
	return in.photos(shard{}.parts(len(in.sections)), new(starts))
}

// joinCaptions joins the processes that caption together. leave must be called at the end.
func joinCaptions(c *cli.Context, o clipcap.Options) (g *distributed.Group, leave func(error) error, err error) {
	if out := c.Path("output"); out != "" {
		if err := atomicfile.Check(out); err != nil {
			return nil, nil, err
		}
	}
	if g, leave, err = joinCommand(c); err != nil {
		return nil, nil, err
	}
	if g.Size() > 1 && o.Method == clipcap.Sample {
		return nil, nil, leave(usagef("--decode sample is for one process: the seed of a photo counts the readable ones before it, which other processes read"))
	}
	return g, leave, nil
}

// A captionedPart is what a process has made of a part.
type captionedPart struct {
	Part   int    `json:"part"`
	Seen   int    `json:"seen"`
	Failed int    `json:"failed"`
	Tars   int    `json:"tars"`
	Text   string `json:"text"` // the lines of its captions
}

// captionParts captions photos part by part, in one process or several, and writes the captions in their
// order to --output or, without it, to standard output. Part k of those that are left belongs to rank
// k mod N. After each N parts, rank 0 gets the captions of all.
func captionParts(c *cli.Context, g *distributed.Group, p *pipeline.Captioner, paths []string, o clipcap.Options) error {
	in := captionInput(paths, c.Int("batch"))
	if err := sameInput(g, *in); err != nil {
		return err
	}
	to, err := newCaptionSink(c, g, in, o)
	if err != nil {
		return err
	}
	defer to.close()
	total := len(in.sections)
	all, err := distributed.Gather(g, to.done)
	if err != nil {
		return err
	}
	first := all[0] // rank 0's
	if first > 0 && g.Rank() == 0 {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: kept %s that %s captioned before; %d to do\n", countOf(first, "part"), map[bool]string{true: "was", false: "were"}[first == 1], total-first)
	}
	var own []int
	for k := first + g.Rank(); k < total; k += g.Size() {
		own = append(own, k)
	}
	o.Seed += uint64(to.sum.seen - to.sum.failed) // of a single process
	give := func(text []byte) error {
		all, err := g.AllGatherBytes(text)
		if err == nil {
			err = to.add(all)
		}
		return err
	}
	for part, err := range ownParts(c, p, in, own, g, o) {
		var text []byte
		if err == nil {
			text, err = json.Marshal(part)
		}
		if err == nil {
			err = give(text)
		}
		if err != nil {
			return err
		}
	}
	if left := (total - first) % g.Size(); left > 0 && g.Rank() >= left {
		if err := give(nil); err != nil { // the last parts are those of others
			return err
		}
	}
	err = to.finish(c)
	if err != nil && !errors.Is(err, errReported) {
		return err
	}
	// All end together, because a launcher ends the others when one of them fails.
	return errors.Join(g.Barrier(), err)
}

// ownParts captions the parts of a process, one after the other.
func ownParts(c *cli.Context, p *pipeline.Captioner, in *inputs, own []int, g *distributed.Group, o clipcap.Options) iter.Seq2[captionedPart, error] {
	return func(yield func(captionedPart, error) bool) {
		if len(own) == 0 {
			return
		}
		var at starts
		photos, count := in.photos(own, &at)
		what := "photos"
		if g.Size() > 1 {
			what = fmt.Sprintf("rank %d: photos", g.Rank())
		}
		bar := newProgress(c.App.ErrWriter, what, count)
		defer bar.finish()
		now, text := captionedPart{Part: own[0]}, new(bytes.Buffer)
		var t tally
		done, parts := 0, 0
		end := func() bool {
			now.Seen, now.Failed, now.Tars, now.Text = t.seen, t.failed, t.tars, text.String()
			return yield(now, nil)
		}
		for b, err := range p.PhotosFrom(c.Context, photos, in.batch, o) {
			if err == nil {
				// A part ends where the next one begins: nobody knows earlier where a tar ends.
				if next, ok := at.get(parts + 1); ok && next == done {
					if !end() {
						return
					}
					parts++
					now, t = captionedPart{Part: own[parts]}, tally{}
					text.Reset()
				}
				t.add(bar, len(b.Index), b.Failed)
				err = printBatch(c, text, p, b)
			}
			if err != nil {
				yield(now, err)
				return
			}
			done += len(b.Index) + len(b.Failed)
			bar.add(len(b.Index) + len(b.Failed))
		}
		end()
	}
}

// A captionSink is where rank 0 writes captions; the others' does nothing. With --output, what is done is in a
// journal, FILE.partial: a line that says what the captions are of, and one for each part.
type captionSink struct {
	out     io.Writer // without a journal; nil if this process writes nothing
	path    string    // of --output
	journal *os.File
	done    int   // parts
	sum     tally // of all parts
}

func newCaptionSink(c *cli.Context, g *distributed.Group, in *inputs, o clipcap.Options) (*captionSink, error) {
	s := &captionSink{path: c.Path("output")}
	if g.Rank() > 0 {
		return s, nil
	}
	if s.path == "" {
		s.out = c.App.Writer
		return s, nil
	}
	head, err := captionOrigin(c, in, o)
	if err != nil {
		return nil, err
	}
	return s, s.open(head)
}

// captionOrigin returns a line that says what captions depend on.
func captionOrigin(c *cli.Context, in *inputs, o clipcap.Options) (string, error) {
	of := "built-in, cyclecap " + version()
	if !builtIn(c) {
		var err error
		if of, err = pipeline.WeightsHash(c.Path("clip"), c.Path("decoder"), c.Path("gpt2"), c.Path("generator")); err != nil {
			return "", err
		}
	}
	o.OnToken, o.OnPrefixes = nil, nil
	text, err := json.Marshal(map[string]any{"inputs": in.hash(), "parts": len(in.sections), "batch": in.batch, "weights": of,
		"clip_config": c.Path("clip-config"), "normalize": c.String("normalize"), "dtype": c.String("dtype"), "fast": c.Bool("fast"),
		"json": c.Bool("json"), "decode": fmt.Sprintf("%+v", o)})
	return string(text) + "\n", err
}

func (s *captionSink) partial() string { return s.path + ".partial" }

// open opens the journal, with what it has of the same captions.
func (s *captionSink) open(head string) (err error) {
	if s.journal, err = os.OpenFile(s.partial(), os.O_RDWR|os.O_CREATE, 0o666); err != nil {
		return err
	}
	var size int64
	err = s.each(func(line []byte, end int64) error {
		if size == 0 {
			if string(line) != head {
				return fmt.Errorf("%s is of other photos, models or options: use the same, or remove it", s.partial())
			}
			size = end
			return nil
		}
		var part captionedPart
		if json.Unmarshal(line, &part) != nil || part.Part != s.done {
			return io.EOF // half a line, from a process that was killed
		}
		s.count(part)
		size = end
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.journal.Truncate(size); err != nil {
		return err
	}
	if _, err := s.journal.Seek(size, io.SeekStart); err != nil {
		return err
	}
	if size == 0 {
		_, err = io.WriteString(s.journal, head)
	}
	return err
}

// each calls f with the lines of the journal, and where they end. io.EOF ends it without an error.
func (s *captionSink) each(f func(line []byte, end int64) error) error {
	if _, err := s.journal.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in, at := bufio.NewReader(s.journal), int64(0)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil // with what follows the last complete line
		}
		at += int64(len(line))
		if err == nil {
			err = f(line, at)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *captionSink) count(p captionedPart) {
	s.done++
	s.sum.count(p.Seen, p.Failed, p.Tars)
}

// add writes the parts that follow, those of all processes.
func (s *captionSink) add(all [][]byte) error {
	for _, text := range all {
		if len(text) == 0 || s.out == nil && s.journal == nil {
			continue
		}
		var part captionedPart
		if err := json.Unmarshal(text, &part); err != nil {
			return err
		}
		if part.Part != s.done {
			return fmt.Errorf("got part %d of the captions, want %d", part.Part, s.done)
		}
		s.count(part)
		if s.journal == nil {
			if _, err := io.WriteString(s.out, part.Text); err != nil {
				return err
			}
			continue
		}
		if _, err := s.journal.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// finish writes the file from the journal, and reports what could not be read. The journal then stays, so that
// the same command does not caption the others again.
func (s *captionSink) finish(c *cli.Context) error {
	if s.out == nil && s.journal == nil {
		return nil
	}
	if s.journal != nil {
		err := write(func() error {
			return atomicfile.Write(c.Context, s.path, func(to io.Writer) error {
				first := true
				return s.each(func(line []byte, _ int64) error {
					var part captionedPart
					if first {
						first = false
						return nil
					}
					if err := json.Unmarshal(line, &part); err != nil {
						return fmt.Errorf("%s: %w", s.partial(), err)
					}
					_, err := io.WriteString(to, part.Text)
					return err
				})
			})
		})
		if err != nil {
			return err
		}
	}
	if s.sum.bad() {
		fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s\n", s.sum.say("captioned"))
		return errReported
	}
	if s.journal != nil {
		if err := os.Remove(s.partial()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *captionSink) close() {
	if s.journal != nil {
		s.journal.Close()
	}
}
