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
