package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"cyclecap/data/embeddings"
	"cyclecap/torch/distributed"

	"github.com/urfave/cli/v2"
)

// plain hides from progress that a process may write to a terminal: several bars would overwrite each other.
type plain struct{ io.Writer }

// groupFeatures is features in several processes: each computes its shard, and rank 0 puts them together.
func groupFeatures(c *cli.Context, job featureJob) (err error) {
	g, ctx, leave, err := join(c, rendezvousTimeout, func(text string) { fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s\n", text) })
	if err != nil {
		return err
	}
	defer func() { err = leave(err) }()
	c.Context = ctx
	if g.Size() > 1 {
		job.share = shard{g.Rank() + 1, g.Size()}
	}
	if g.Rank() > 0 {
		c.App.ErrWriter = plain{c.App.ErrWriter}
	}
	if err := sameInput(g, job.in); err != nil {
		return err
	}
	t, err := job.run(c)
	if g.Size() == 1 || err != nil && !errors.Is(err, errReported) {
		return err
	}
	return finishFeatures(c, g, job, t)
}

// finishFeatures is called in all processes when the shard of each is done. All end together, because
// a launcher ends the others when one of them fails: only rank 0 reports photos that could not be read.
func finishFeatures(c *cli.Context, g *distributed.Group, job featureJob, t tally) error {
	text, err := json.Marshal([]int{t.seen, t.failed, t.tars})
	if err != nil {
		return err
	}
	all, err := g.AllGatherBytes(text)
	if err != nil {
		return err
	}
	if g.Rank() > 0 {
		return g.Barrier()
	}
	var sum tally
	for rank, text := range all {
		var n [3]int
		if err := json.Unmarshal(text, &n); err != nil {
			return fmt.Errorf("the counts of rank %d: %w", rank, err)
		}
		sum.seen, sum.failed, sum.tars = sum.seen+n[0], sum.failed+n[1], sum.tars+n[2]
	}
	if embeddings.IsFolder(job.out) {
		if sum.bad() {
			fmt.Fprintf(c.App.ErrWriter, "cyclecap: %s; %s contains the features of the others\n", sum.say("read"), job.out)
			err = errReported
		}
	} else {
		err = mergeFeatures(c, job.out, []string{partsFolder(job.out)})
	}
	if err != nil && !errors.Is(err, errReported) {
		return err
	}
	if e := g.Barrier(); e != nil {
		return e
	}
	if job.in.skipped > 0 {
		return errReported
	}
	return err
}

// sameInput returns an error if not all processes of a group have the same input.
func sameInput(g *distributed.Group, in inputs) error {
	if g.Size() == 1 {
		return nil
	}
	all, err := g.AllGatherBytes([]byte(in.hash()))
	if err != nil {
		return err
	}
	for rank, hash := range all {
		if string(hash) != string(all[0]) {
			return fmt.Errorf("ranks 0 and %d have different inputs: all need the same in the same order; name files and folders, since processes that read one standard input each get a part of it", rank)
		}
	}
	return nil
}
