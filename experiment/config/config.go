// Package config reads the TOML file of an experiment, as `cyclecap run` takes
// it: strictly, so that a typing error can't become a default. It needs no
// libtorch.
//
// The structs of this file are the one place where keys are defined: a field's
// comment describes its key for people, and its tags are what the package goes by
// (the settings of bridges, which are declared with them, come in addition):
//
//	toml     the key
//	default  the value where the file has none; words, or "" where it is computed
//	range    numbers that are allowed, as an interval: [1,100] (0,1] [0,)
//	choices  words that are allowed; "bridges": the names of the bridges
//	source   where the default comes from
//
// docs/config.md is made from them.
package config

//go:generate go test -run TestDocs -update .

// Config is an experiment. Paths are relative to the working directory.
type Config struct {
	// Name of the experiment, as reports show it: letters, digits, '.', '_' and '-'.
	// Without one it is that of the file, without ".toml".
	Name string `toml:"name"`
	// Output is the folder that everything is written to. Without one it is
	// work/NAME.
	Output string `toml:"output"`
	// Seed of everything that is drawn: initial weights, order of the data,
	// noise, bootstrap. With --seeds N the runs have this one and the N-1 after it.
	Seed int `toml:"seed" default:"0" range:"[0,1e15]"`
	// Device that computes: cpu, cuda or cuda:N.
	Device string `toml:"device" default:"cpu"`
	// Threads that compute; 0: one for each core.
	Threads int `toml:"threads" default:"0" range:"[0,1024]"`

	// World is a rendered data set. Where the file has this table, the set is
	// written to OUTPUT/world, and the keys of [data] that name training and
	// validation data default to it; a CLIP and a GPT-2 without weights are
	// trained on a part of it that neither training nor validation see.
	World   *World  `toml:"world"`
	Data    Data    `toml:"data"`
	CLIP    CLIP    `toml:"clip"`
	GPT2    GPT2    `toml:"gpt2"`
	Train   Train   `toml:"train"`
	Bridges Bridges `toml:"bridges"`
	Caption Caption `toml:"caption"`
	Eval    Eval    `toml:"eval"`
}

// World says how large a rendered data set is (`cyclecap world`).
type World struct {
	// Seed of the scenes. It is not that of the training, so that runs of several
	// seeds share a world.
	Seed int `toml:"seed" default:"0" range:"[0,1e15]"`
	// Size of a photo's side in pixels.
	Size int `toml:"size" default:"224" range:"[32,1024]" source:"CLIP ViT-B/32"`
	// Pretrain is the number of photos that CLIP and GPT-2 are trained on.
	Pretrain int `toml:"pretrain" default:"8000" range:"[1,1e7]"`
	// Train is the number of photos of the training set.
	Train int `toml:"train" default:"4000" range:"[1,1e7]"`
	// Val is the number of photos of the validation set.
	Val int `toml:"val" default:"500" range:"[1,1e7]"`
}

// Data says what is trained on and what is captioned.
type Data struct {
	// TrainAnnotations is the COCO captions file of the training set. The world's
	// where there is [world].
	TrainAnnotations string `toml:"train_annotations" source:"the paper: COCO train2014"`
	// TrainImages is the folder of its photos. The world's where there is [world].
	TrainImages string `toml:"train_images" source:"the paper: COCO train2014"`
	// ValAnnotations is the COCO captions file of the validation set. The world's
	// where there is [world].
	ValAnnotations string `toml:"val_annotations" source:"the paper: COCO val2014"`
	// ValImages is the folder of its photos. The world's where there is [world].
	ValImages string `toml:"val_images" source:"the paper: COCO val2014"`
	// Karpathy is the file of Karpathy's split (dataset_coco.json): with it,
	// training and validation sets are divided as it says. Empty: as COCO does.
	Karpathy string `toml:"karpathy"`
	// Photos is a folder of photos without captions. With captions, it replaces
	// the training set.
	Photos string `toml:"photos" source:"the paper: future work"`
	// Captions is a text file with a caption a line. With photos, it replaces the
	// training set.
	Captions string `toml:"captions" source:"the paper: future work"`
	// ClipCap is a file of features and captions that ClipCap's parse_coco.py wrote
	// (oscar_split_ViT-B_32_train.pkl), of the CLIP of clip.weights: it replaces the
	// training set, and no training photo is needed. Nothing in it is run.
	ClipCap string `toml:"clipcap" source:"ClipCap: train.py --data"`
	// Pairing says which photos and captions the CycleGAN sees: those of the whole set,
	// as in the paper, where a photo's captions are there but unknown to
	// be its; or disjoint, the photos of one half of the set and the captions of the other.
	Pairing string `toml:"pairing" default:"paper" choices:"paper,disjoint" source:"the paper"`
	// MaxBad is the share of photos that may be missing or unreadable, and of captions
	// that may be empty or of unknown photos: they are listed and skipped. With
	// more, the run stops.
	MaxBad float64 `toml:"max_bad" default:"0.01" range:"[0,1]"`
	// ValLimit is the number of validation photos to caption, chosen by the seed;
	// 0: all.
	ValLimit int `toml:"val_limit" default:"0" range:"[0,1e9]"`
}

// CLIP names the encoder of photos and texts.
type CLIP struct {
	// Weights is the file or folder of a CLIP. Empty: one is trained, as
	// [train.clip] says, which needs [world].
	Weights string `toml:"weights" source:"Table 1: ViT-B/32"`
}

// GPT2 names the language model of the decoder.
type GPT2 struct {
	// Weights is the file or folder of a GPT-2. Empty: one is trained, as
	// [train.gpt2] says, which needs [world].
	Weights string `toml:"weights" source:"the paper: GPT-2 small"`
}

// Train has the settings of what is trained.
type Train struct {
	CLIP     TrainCLIP     `toml:"clip"`
	GPT2     TrainGPT2     `toml:"gpt2"`
	Decoder  TrainDecoder  `toml:"decoder"`
	CycleGAN TrainCycleGAN `toml:"cyclegan"`
}

// TrainCLIP has the sizes and the training of a small CLIP; it is used where
// clip.weights is empty.
type TrainCLIP struct {
	// Width of the image encoder, a multiple of 64: heads are that wide in every
	// CLIP.
	Width int `toml:"width" default:"192" range:"[64,16384]"`
	// Layers of the image encoder.
	Layers int `toml:"layers" default:"4" range:"[1,1000]"`
	// Patch is a patch's side in pixels.
	Patch int `toml:"patch" default:"16" range:"[1,1024]"`
	// Image is the side, in pixels, of the photos as CLIP sees them.
	Image int `toml:"image" default:"128" range:"[1,4096]"`
	// TextWidth is the width of the text encoder, a multiple of 64.
	TextWidth int `toml:"text_width" default:"128" range:"[64,16384]"`
	// TextLayers is the number of layers of the text encoder.
	TextLayers int `toml:"text_layers" default:"4" range:"[1,1000]"`
	// EmbedDim is the width of the features.
	EmbedDim int `toml:"embed_dim" default:"512" range:"[1,16384]" source:"Table 2"`
	// Epochs, passes over the photos.
	Epochs int `toml:"epochs" default:"10" range:"[1,1e6]"`
	// Batch, photos and captions of a step.
	Batch int `toml:"batch" default:"128" range:"[2,1e6]"`
	// LR is the rate of AdamW at its highest.
	LR float64 `toml:"lr" default:"5e-4" range:"(0,10]" source:"CLIP: ViT-B/32"`
	// WeightDecay of matrices.
	WeightDecay float64 `toml:"weight_decay" default:"0.2" range:"[0,10]" source:"CLIP"`
	// WarmupSteps, over which the rate rises from 0.
	WarmupSteps int `toml:"warmup_steps" default:"100" range:"[0,1e9]"`
	// Dtype, f32 or bf16 (autocast; the weights stay f32).
	Dtype string `toml:"dtype" default:"f32" choices:"f32,bf16"`
	// CheckpointEvery, steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"200" range:"[1,1e9]"`
}

// TrainGPT2 has the sizes and the training of a small GPT-2; it is used where
// gpt2.weights is empty.
type TrainGPT2 struct {
	// Vocab is the size of the vocabulary: GPT-2's first so many tokens, by which
	// words come in more pieces than by all 50257.
	Vocab int `toml:"vocab" default:"2048" range:"[256,50257]"`
	// Width of the embeddings, a multiple of 64: heads are that wide in every
	// GPT-2.
	Width int `toml:"width" default:"192" range:"[64,16384]"`
	// Layers, transformer blocks.
	Layers int `toml:"layers" default:"4" range:"[1,1000]"`
	// Positions, prefix and tokens that fit into it.
	Positions int `toml:"positions" default:"128" range:"[2,65536]"`
	// Epochs, passes over the captions.
	Epochs int `toml:"epochs" default:"3" range:"[1,1e6]"`
	// Batch, windows of text of a step.
	Batch int `toml:"batch" default:"32" range:"[1,1e6]"`
	// LR is the rate of AdamW at its highest.
	LR float64 `toml:"lr" default:"1e-3" range:"(0,10]"`
	// WarmupSteps, over which the rate rises from 0.
	WarmupSteps int `toml:"warmup_steps" default:"100" range:"[0,1e9]"`
	// Dtype, f32 or bf16 (autocast; the weights stay f32).
	Dtype string `toml:"dtype" default:"f32" choices:"f32,bf16"`
	// CheckpointEvery, steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"200" range:"[1,1e9]"`
}

// TrainDecoder has the settings of the text decoder: the paper's Table 1 and,
// where that is silent, ClipCap's train.py.
type TrainDecoder struct {
	// Mapper turns a feature into a prefix: a transformer or an mlp.
	Mapper string `toml:"mapper" default:"transformer" choices:"transformer,mlp" source:"Table 1"`
	// PrefixLength is the number of embeddings that GPT-2 is given.
	PrefixLength int `toml:"prefix_length" default:"40" range:"[1,1024]" source:"Table 1"`
	// ClipLength is the number of tokens that the transformer mapper makes of a
	// feature.
	ClipLength int `toml:"clip_length" default:"40" range:"[1,1024]" source:"Table 1"`
	// Layers of the transformer mapper.
	Layers int `toml:"layers" default:"8" range:"[1,1000]" source:"Table 1"`
	// Epochs, passes over the captions.
	Epochs int `toml:"epochs" default:"20" range:"[1,1e6]" source:"Table 1"`
	// Batch, captions of a step.
	Batch int `toml:"batch" default:"64" range:"[1,1e6]" source:"Table 1"`
	// LR is the rate of AdamW at its highest.
	LR float64 `toml:"lr" default:"2e-5" range:"(0,10]" source:"ClipCap"`
	// WarmupSteps, over which the rate rises from 0; after them it falls linearly to 0.
	WarmupSteps int `toml:"warmup_steps" default:"5000" range:"[0,1e9]" source:"ClipCap"`
	// FreezeGPT2 trains the mapper alone; false: GPT-2 as well.
	FreezeGPT2 bool `toml:"freeze_gpt2" default:"true" source:"Table 1"`
	// NormalizePrefix scales features to length 1 before the mapper sees them.
	NormalizePrefix bool `toml:"normalize_prefix" default:"false" source:"ClipCap"`
	// Dtype, f32 or bf16 (autocast; the weights stay f32).
	Dtype string `toml:"dtype" default:"f32" choices:"f32,bf16" source:"ClipCap"`
	// CheckpointEvery, steps between checkpoints and validations.
	CheckpointEvery int `toml:"checkpoint_every" default:"1000" range:"[1,1e9]"`
}

// TrainCycleGAN has the settings of the latent CycleGAN: the paper's Table 2
// and, where that is silent, the CycleGAN paper (Zhu et al. 2017).
type TrainCycleGAN struct {
	// Epochs, passes over the larger of the two sets.
	Epochs int `toml:"epochs" default:"20" range:"[1,1e6]" source:"Table 2"`
	// Batch, features of either kind of a step.
	Batch int `toml:"batch" default:"64" range:"[1,1e6]" source:"Table 2"`
	// LR is the rate of Adam, for generators and discriminators.
	LR float64 `toml:"lr" default:"2e-4" range:"(0,10]" source:"Zhu et al."`
	// Beta1 of Adam.
	Beta1 float64 `toml:"beta1" default:"0.5" range:"[0,1)" source:"Zhu et al."`
	// Beta2 of Adam.
	Beta2 float64 `toml:"beta2" default:"0.999" range:"[0,1)" source:"Zhu et al."`
	// DecayFrom is the epoch, counted from 0, from which the rate falls linearly
	// to 0; as many as there are epochs: never. Without one it is half of epochs,
	// rounded down.
	DecayFrom int `toml:"decay_from" range:"[0,1e6]" source:"Zhu et al."`
	// Adversarial loss: least-squares, or bce, binary cross-entropy.
	Adversarial string `toml:"adversarial" default:"least-squares" choices:"least-squares,bce" source:"Zhu et al."`
	// CycleWeight of both L1 cycle losses.
	CycleWeight float64 `toml:"cycle_weight" default:"10" range:"[0,1e6]" source:"Zhu et al."`
	// IdentityWeight of both identity losses, relative to cycle_weight (the
	// lambda_identity of the CycleGAN authors' code).
	IdentityWeight float64 `toml:"identity_weight" default:"0.5" range:"[0,1e6]" source:"Zhu et al."`
	// Pool is the number of past fakes that the discriminators may be shown; 0: none.
	Pool int `toml:"pool" default:"50" range:"[0,1e6]" source:"Zhu et al."`
	// DiscHalved halves the discriminators' losses.
	DiscHalved bool `toml:"disc_halved" default:"true" source:"Zhu et al."`
	// Normalize says what the nets are given: features as the decoder gets them
	// (none; at length 1 with train.decoder.normalize_prefix), or with mean 0 and
	// deviation 1 in each dimension (standard), which is folded into the
	// generators when they are saved.
	Normalize string `toml:"normalize" default:"none" choices:"none,standard"`
	// CheckpointEvery, steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"5000" range:"[1,1e9]"`
}

// Bridges says which ways from image to text features are compared.
type Bridges struct {
	// Use lists the bridges, in the order of the table. clipcap is supervised:
	// the ceiling.
	Use []string `toml:"use" default:"direct,cyclegan" choices:"bridges" source:"Table 3"`
	// Settings are the bridges' own, by key. Each bridge declares them in package
	// bridge.
	Settings map[string]float64 `toml:"-"`
}

// Caption says how captions are decoded.
type Caption struct {
	// Decode is the rule: beam search, or greedy, the most probable token.
	Decode string `toml:"decode" default:"beam" choices:"beam,greedy" source:"ClipCap"`
	// Beam is the number of beams.
	Beam int `toml:"beam" default:"5" range:"[1,1000]" source:"ClipCap"`
	// MaxTokens is the length of a caption at most, the full stop included.
	MaxTokens int `toml:"max_tokens" default:"67" range:"[1,1024]" source:"ClipCap"`
	// Batch, photos captioned at once.
	Batch int `toml:"batch" default:"16" range:"[1,1e6]"`
}

// Eval says what is measured and shown.
type Eval struct {
	// Metrics lists what captions are scored by. METEOR needs meteor_data.
	Metrics []string `toml:"metrics" default:"bleu,rouge,cider,meteor" choices:"bleu,rouge,cider,meteor" source:"Table 3"`
	// Examples is the number of photos that the report shows, chosen by the seed.
	Examples int `toml:"examples" default:"12" range:"[0,1000]" source:"Appendix A"`
	// MeteorData is the folder of METEOR's data, as `make meteor-data` makes it.
	// Empty: where that puts it.
	MeteorData string `toml:"meteor_data"`
}
