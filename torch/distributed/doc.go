// Package distributed lets several processes train one net: libtorch's own
// c10d over Gloo, with the names of PyTorch's torch.distributed. A Go process
// and a Python process can be in one group.
//
// # Starting the processes
//
// Any launcher will do that sets what torchrun sets, such as torchrun itself:
//
//	torchrun --nproc-per-node 2 --no-python cyclecap …
//
//	RANK         this process, 0 to WORLD_SIZE-1
//	LOCAL_RANK   the same among the processes of this machine
//	WORLD_SIZE   how many there are
//	MASTER_ADDR  a name or an address of the machine of rank 0
//	MASTER_PORT  a free TCP port there
//
// Set OMP_NUM_THREADS too (torchrun does): processes on one machine share its
// cores. On several machines GLOO_SOCKET_IFNAME=eth0 names the network
// interface, where the one that the host name belongs to is not the right one.
//
// # Training
//
// Every process builds the same net from the same seed, takes its own share of
// each batch, and averages the gradients between backward and step:
//
//	options, err := distributed.FromEnv()
//	if err != nil {
//		return err
//	}
//	group, err := distributed.InitProcessGroup(ctx, options)
//	if err != nil {
//		return err
//	}
//	defer group.Close()
//	…
//	loss.Backward()
//	if err := distributed.AverageGradients(group, params); err != nil {
//		return err
//	}
//	opt.Step()
//
// With shares of equal size and a loss that is a mean, that is the step of one
// process on the whole batch, to rounding.
//
// A nil *Group is a group of one process, so that a training loop needs no
// second path:
//
//	options, err := distributed.FromEnv()
//	var group *distributed.Group
//	if err == nil {
//		group, err = distributed.InitProcessGroup(ctx, options)
//	} else if errors.Is(err, distributed.ErrNotLaunched) {
//		err = nil
//	}
//
// # Collectives
//
// All processes call the same methods in the same order, with tensors of the
// same shape and dtype; libtorch does not check it. A stop, too, is agreed
// on: all-reduce a flag, rather than leave the loop where a signal came.
//
// # Errors
//
// A call ends within [Options].Timeout, also where another process died or
// hangs. Its error then is a *[torch.Error] of kind [torch.DistError]; the
// group is of no use any more. Let the process end, so that its launcher
// starts all of them again from the last checkpoint.
package distributed
