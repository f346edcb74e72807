package cli

import (
	"errors"
	"fmt"

	"cyclecap/data/embeddings"
	"cyclecap/torch/distributed"

	"github.com/urfave/cli/v2"
)

// groupFeatures is features in several processes: each computes its shard, and rank 0 puts them together.
func groupFeatures(c *cli.Context, job featureJob) (err error) {
	g, leave, err := joinCommand(c)
	if err != nil {
		return err
	}
	defer func() { err = leave(err) }()
	if g.Size() > 1 {
		job.share = shard{g.Rank() + 1, g.Size()}
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
	all, err := distributed.Gather(g, [3]int{t.seen, t.failed, t.tars})
	if err != nil {
		return err
	}
	if g.Rank() > 0 {
		return g.Barrier()
	}
	var sum tally
	for _, n := range all {
		sum.count(n[0], n[1], n[2])
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
	all, err := distributed.Gather(g, in.hash())
	if err != nil {
		return err
	}
	for rank, hash := range all {
		if hash != all[0] {
			return fmt.Errorf("ranks 0 and %d have different inputs: all need the same in the same order; name files and folders, since processes that read one standard input each get a part of it", rank)
		}
	}
	return nil
}
