package experiment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
)

// A stage is a part of the experiment with a folder of its own.
type stage struct {
	name string // as in `--until`: "decoder"
	dir  string // under the experiment's folder
	// inputs is all that its outcome depends on: settings, and the keys of
	// the stages that it reads.
	inputs []any
	// keeps says that do itself goes on with what an interrupted run left.
	keeps bool
	// shared says that all processes of a group do it together; the others are
	// done by rank 0.
	shared bool
	do     func(ctx context.Context, dir string) error
}

// stageFile is what a stage that is done leaves in its folder.
const stageFile = "stage.json"

// stageRecord says what a stage was made of.
type stageRecord struct {
	Stage    string    `json:"stage"`
	Key      string    `json:"key"`
	Finished time.Time `json:"finished"`
	Seconds  float64   `json:"seconds"` // of the run that finished it
}

// key identifies a stage's inputs.
func (s *stage) key() string {
	b, err := json.Marshal(append([]any{s.name}, s.inputs...))
	if err != nil {
		panic(err) // settings and strings always have a JSON form
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

func readRecord(dir string) (r stageRecord, err error) {
	b, err := os.ReadFile(filepath.Join(dir, stageFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w; remove it to do the stage again", filepath.Join(dir, stageFile), err)
	}
	return r, nil
}

// run does a stage unless it is done with the same inputs. All processes of a
// group call it.
func (x *Experiment) run(ctx context.Context, s *stage) error {
	if err := ctx.Err(); err != nil && x.Group.Size() == 1 {
		return err
	}
	first := x.Group.Rank() == 0
	done, err := false, error(nil)
	if first {
		done, err = x.begin(s)
	}
	if done, err = x.agree(done, err); done || err != nil {
		return err
	}
	dir := filepath.Join(x.Dir, s.dir)
	began := time.Now()
	if first || s.shared {
		err = s.do(ctx, dir)
	}
	if first && err == nil {
		r := stageRecord{Stage: s.name, Key: s.key(), Finished: time.Now().UTC().Truncate(time.Second), Seconds: time.Since(began).Seconds()}
		x.note(s, r.Seconds, false)
		err = writeJSON(filepath.Join(dir, stageFile), r)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", s.title(), err)
	}
	_, err = x.agree(false, err)
	return err
}

// note remembers how long a stage took, for the report.
func (x *Experiment) note(s *stage, seconds float64, skipped bool) {
	x.order = append(x.order, s.title())
	x.took[s.title()], x.skipped[s.title()] = seconds, skipped
}

// begin makes a stage's folder ready, or says that the stage is done.
func (x *Experiment) begin(s *stage) (done bool, err error) {
	dir := filepath.Join(x.Dir, s.dir)
	switch r, err := readRecord(dir); {
	case err == nil && r.Key == s.key():
		x.UI.Say("%s: nothing has changed", s.title())
		x.note(s, r.Seconds, true)
		return true, nil
	case err == nil:
		// Done with other inputs: what is there is put aside, not lost.
		aside := dir + ".previous"
		if err := os.RemoveAll(aside); err != nil {
			return false, err
		}
		if err := os.Rename(dir, aside); err != nil {
			return false, err
		}
		x.UI.Say("%s: settings or inputs have changed; what was there is in %s", s.title(), aside)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case !s.keeps:
		if err := os.RemoveAll(dir); err != nil { // half of an interrupted run
			return false, err
		}
	}
	x.UI.Say("%s", s.title())
	return false, os.MkdirAll(dir, 0o777)
}

// agree tells all processes of a group what rank 0 found.
func (x *Experiment) agree(done bool, err error) (bool, error) {
	if x.Group.Size() == 1 || (x.Group.Rank() != 0 && err != nil) {
		return done, err // a process that failed leaves the group, and the others see it
	}
	failed := false
	e := torch.Scope(func() error {
		word := torch.FromSlice([]float32{number(done), number(err != nil)})
		if err := x.Group.Broadcast(word, 0); err != nil {
			return err
		}
		v := torch.ToSlice[float32](word)
		done, failed = v[0] != 0, v[1] != 0
		return nil
	})
	switch {
	case err != nil:
		return done, err
	case e != nil:
		return done, e
	case failed:
		return done, errors.New("rank 0 has failed, and says why")
	}
	return done, nil
}

func number(b bool) float32 {
	if b {
		return 1
	}
	return 0
}

// title names a stage for people: "seed-0/decoder-texts".
func (s *stage) title() string { return filepath.ToSlash(s.dir) }

// writeJSON writes a file atomically.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(path, append(b, '\n'))
}

// lock keeps a second run out of the folder for as long as this process lives.
func lock(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, ".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another run is at work in this folder; wait for it or choose another folder (--output)", dir)
	}
	return func() { f.Close() }, nil
}
