// Package train has the training steps of the two learned parts: the text
// decoder (ClipCap's rules, the paper's Table 1) and the latent CycleGAN (the
// paper's Table 2, with the CycleGAN paper's losses and defaults).
package train
