// Package distributed trains a network with several processes. It uses
// libtorch's c10d, under the names of PyTorch's torch.distributed. Go and Python
// processes can be in the same group.
//
// # Starting the processes
//
// Use torchrun, or any launcher that sets the same environment variables:
//
//	torchrun --nproc-per-node 2 --no-python cyclecap …
//
//	RANK         rank of this process, 0 to WORLD_SIZE-1
//	LOCAL_RANK   rank among the processes on this machine
//	WORLD_SIZE   number of processes
//	MASTER_ADDR  host name or address of the machine of rank 0
//	MASTER_PORT  a free TCP port on that machine
//
// Set OMP_NUM_THREADS too (torchrun does), because the processes on one machine
// share its cores. With several machines, set GLOO_SOCKET_IFNAME (for example to
// eth0) if the network interface that the host name resolves to is not the right
// one.
//
// # Training
//
// Every process builds the same network from the same seed, takes its own part
// of each batch, and averages the gradients between Backward and Step:
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
// If the parts have equal size and the loss is a mean, the step is that of one
// process with the whole batch, up to rounding. A [Reducer] averages gradients while
// the backward pass goes on.
//
// A nil *Group is a group of one process, so a training loop needs no separate
// code path for it:
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
// All processes must call the same methods in the same order, with tensors of
// the same shape and dtype; libtorch does not check this. To stop early, use
// [Group.WantStop] with a Reducer, or all-reduce a flag, so that all processes leave the
// training loop at the same step; do not leave it as soon as a signal arrives.
//
// # Backends
//
// As with PyTorch's default backend ("cpu:gloo,cuda:nccl"), CPU tensors go through
// Gloo and CUDA tensors through NCCL, from GPU to GPU; see [Options].Backend. NCCL
// is opened with the first CUDA tensor. Each process must use a GPU of its own:
//
//	device := torch.CUDA(group.LocalRank())
//
// A call returns when the operation is complete, with NCCL too: it sets
// TORCH_NCCL_BLOCKING_WAIT=1, unless the variable is set, so that a process that
// has ended is an error in the others.
//
// # Errors
//
// Every call returns within [Options].Timeout, even if another process has died
// or hangs. The error is then a *[torch.Error] of kind [torch.DistError], and
// the group can no longer be used. Exit, so that the launcher can restart all
// processes from the last checkpoint.
//
// Each pair of processes also keeps a connection that carries nothing. When one
// ends before it has left the group, the connection tells the others, while they
// compute as well: the contexts of [Group.Context] are done, with a *[LostError]
// that names its rank, which the errors of calls have too. A machine that no
// longer answers is noticed after 20 seconds.
package distributed
