package world

// Texts returns the captions of the first n scenes of the training part, CaptionsEach of
// each, as Write would write them. It draws no photos.
func (c Config) Texts(n int) ([]string, error) {
	c.Pretrain, c.Train, c.Val, c.Tune = 0, n, 0, 0
	if err := c.Check(); err != nil {
		return nil, err
	}
	p := c.parts()[0]
	texts := make([]string, 0, n*CaptionsEach)
	for i := range n {
		texts = append(texts, c.scene(p, i).Captions(c.rng(p, i, 1), CaptionsEach)...)
	}
	return texts, nil
}
