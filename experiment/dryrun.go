package experiment

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A dryRun looks for the stages that are finished. It runs none.
type dryRun struct {
	finished map[string]int // by the name of the stage
}

// errUnfinished ends a dry run at a stage whose results the next ones read.
var errUnfinished = errors.New("a stage is not finished")

// finishedStages returns how many stages of each name are finished, of those up to the one
// named last. It reads all inputs whose hashes are not remembered.
func (x *Experiment) finishedStages(ctx context.Context, last string) (map[string]int, error) {
	of := *x
	of.dry = &dryRun{finished: map[string]int{}}
	of.UI = Silent{}
	of.data = nil
	if beforeEvaluate(last) || x.keyed { // variants are evaluated together
		_, _, err := of.executeWorlds(ctx, last)
		return of.dry.finished, ignoring(err, errUnfinished)
	}
	_, captions, err := of.executeWorlds(ctx, "")
	if err == nil && len(captions) == of.Seeds*of.worlds() {
		_, err = of.evaluate(ctx, captions)
	}
	return of.dry.finished, ignoring(err, errUnfinished)
}

func ignoring(err, known error) error {
	if errors.Is(err, known) {
		return nil
	}
	return err
}

// look notes whether a stage is finished.
func (d *dryRun) look(x *Experiment, s *stage) (done bool) {
	dir := x.folder(s)
	r, err := readRecord(dir)
	if err != nil || r.Key != s.key() || len(x.lost(s, dir, r)) > 0 {
		return false
	}
	s.result = r.Result
	d.finished[s.name]++
	return true
}

// everFinished reports whether a stage with this folder was finished, with any inputs.
func (x *Experiment) everFinished(dir string) bool {
	parent, name := filepath.Split(filepath.Join(x.Dir, dir))
	list, _ := os.ReadDir(parent)
	return slices.ContainsFunc(list, func(e fs.DirEntry) bool {
		if e.Name() != name && !(x.keyed && strings.HasPrefix(e.Name(), name+"-")) {
			return false
		}
		_, err := os.Stat(filepath.Join(parent, e.Name(), stageFile))
		return err == nil
	})
}

// Silent is a UI that shows nothing.
type Silent struct{}

func (Silent) Say(string, ...any)          {}
func (Silent) Bar(string, int, int) Bar    { return Silent{} }
func (Silent) Atomic(f func() error) error { return f() }
func (Silent) Set(int, string)             {}
func (Silent) Finish()                     {}
