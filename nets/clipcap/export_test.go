package clipcap

import (
	"context"

	"cyclecap/torch"
)

// Static decodes as on a GPU, on any device.
func (m *Model) Static(ctx context.Context, features torch.Tensor, o Options) ([][]Caption, error) {
	return m.onDevice(ctx, features, true, m.Mapper.PrefixLength(), o)
}

// MaxStatics is the number of shapes that a Model keeps.
const MaxStatics = maxStatics

// SetMaxBytes limits the caches that a Model keeps, and returns the limit before.
func SetMaxBytes(n int64) (was int64) {
	was, maxBytes = maxBytes, n
	return was
}

// Kept returns the number of shapes that m keeps.
func (m *Model) Kept() int { return len(m.statics) }
