package distributed

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"cyclecap/torch/internal/shim"
)

// meetEvery is the time between two looks at the store.
const meetEvery = 100 * time.Millisecond

// meet returns a prefix for the keys of a group in a launcher's store, with a slash at its end. Such a store
// outlives the processes: when they are started again, it still has the keys of those before, which would
// be taken for theirs. Each process therefore writes a word that nobody used before, to which
// rank 0, and no earlier one, answers with the prefix.
func meet(ctx context.Context, address string, o Options) (string, error) {
	type result struct {
		prefix string
		err    error
	}
	done := make(chan result, 1)
	// libtorch waits without end for the first answer.
	go func() {
		prefix, err := meetAt(ctx, address, o)
		done <- result{prefix, err}
	}()
	select {
	case r := <-done:
		return r.prefix, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func meetAt(ctx context.Context, address string, o Options) (string, error) {
	s, err := shim.OpenStore(address, o.MasterPort, storeTimeout)
	if err != nil {
		return "", failed("init_process_group", err)
	}
	defer shim.CloseStore(s)
	hello := func(rank int) string { return "cyclecap/hello/" + strconv.Itoa(rank) }
	answer := func(word string) string { return "cyclecap/answer/" + word }
	met := func(prefix string, rank int) string { return prefix + "cyclecap/met/" + strconv.Itoa(rank) }
	own := rand.Text()
	prefix, answered := "", map[string]bool{}
	if o.Rank == 0 {
		prefix = "cyclecap/" + own + "/"
	} else if err := shim.StoreSet(s, hello(o.Rank), own); err != nil {
		return "", failed("init_process_group", err)
	}
	// look returns whether all that this process waits for has come.
	look := func() (bool, error) {
		if o.Rank > 0 {
			if prefix, err = shim.StoreGet(s, answer(own)); err != nil || prefix == "" {
				return false, err
			}
			return true, shim.StoreSet(s, met(prefix, o.Rank), own)
		}
		all := true
		for rank := 1; rank < o.WorldSize; rank++ {
			// A word may be that of an earlier process, which nobody waits for.
			word, err := shim.StoreGet(s, hello(rank))
			if err == nil && word != "" && !answered[word] {
				answered[word] = true
				err = shim.StoreSet(s, answer(word), prefix)
			}
			if err != nil {
				return false, err
			}
			came, err := shim.StoreGet(s, met(prefix, rank))
			if err != nil {
				return false, err
			}
			all = all && came != ""
		}
		return all, nil
	}
	for {
		all, err := look()
		if err != nil {
			return "", failed("init_process_group", err)
		}
		if all {
			return prefix, nil
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(meetEvery):
		}
	}
}
