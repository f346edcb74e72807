// Package train implements the trainings: the text decoder (the paper's Table 1, with
// ClipCap's rules) and the latent CycleGAN (the paper's Table 2, with the losses and
// defaults of the CycleGAN paper), and small stand-ins for OpenAI's CLIP and GPT-2. A
// [Loop] runs a [Task] step by step and writes checkpoints and logs.
package train
