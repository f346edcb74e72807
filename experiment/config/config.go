// Package config reads the TOML file of an experiment, as `cyclecap run` takes
// it. Unknown keys are errors, so that a typo cannot silently leave a default in
// place. The package does not need libtorch.
//
// The structs in this file are the only place where keys are defined, apart from
// the settings of bridges, which each bridge declares itself. A field's comment is
// the description of its key that users read; its tags are what the package reads:
//
//	toml     the key
//	default  the value if the key is not set; absent if it is empty or computed
//	range    the allowed numbers, as an interval: [1,100] (0,1] [0,1)
//	choices  the allowed words; "bridges" stands for the names of the bridges
//	source   where the default comes from
//
// docs/config.md is generated from them.
package config

//go:generate go test -run TestDocs -update .

// Config is an experiment. Paths are relative to the working directory.
type Config struct {
	// Name is the name of the experiment in reports; it may contain letters, digits,
	// '.', '_' and '-'. The default is the name of the configuration file without
	// ".toml".
	Name string `toml:"name"`
	// Output is the folder that all results are written to. The default is work/NAME.
	Output string `toml:"output"`
	// Seed is the seed of all random choices: initial weights, data order, noise and
	// bootstrap samples. With --seeds N, the runs in each world use this seed and the N-1
	// seeds that follow it.
	Seed int `toml:"seed" default:"0" range:"[0,1e15]"`
	// Device is the device to compute on: cpu, cuda or cuda:N. With cuda, each of
	// several processes uses the GPU of its LOCAL_RANK.
	Device string `toml:"device" default:"cpu"`
	// Threads is the number of CPU threads to compute with; 0 means one per core.
	// More than 64, or 4 per core if that is more, are refused.
	Threads int `toml:"threads" default:"0" range:"[0,1024]"`

	// World is a rendered data set. If the file has this table, the data set is
	// written to OUTPUT/world and is the default for the keys of [data] that name
	// training and validation data. If clip.weights or gpt2.weights is empty, a small
	// CLIP or GPT-2 is trained on a separate part of the data set, which is used for
	// neither training nor validation.
	World   *World  `toml:"world"`
	Data    Data    `toml:"data"`
	CLIP    CLIP    `toml:"clip"`
	GPT2    GPT2    `toml:"gpt2"`
	Train   Train   `toml:"train"`
	Bridges Bridges `toml:"bridges"`
	Caption Caption `toml:"caption"`
	Eval    Eval    `toml:"eval"`
}

// World configures the rendered data set (see `cyclecap world`).
type World struct {
	// Seed is the seed of the scenes. It is separate from the experiment's seed so
	// that runs with different seeds share a data set. With --worlds M, there are M data
	// sets, with this seed and the M-1 seeds that follow it.
	Seed int `toml:"seed" default:"0" range:"[0,1e15]"`
	// Size is the width and height of the photos in pixels.
	Size int `toml:"size" default:"224" range:"[32,1024]" source:"CLIP ViT-B/32"`
	// Pretrain is the number of photos to train CLIP and GPT-2 on. They are drawn in memory
	// when they are needed, and kept as long as there is memory.
	Pretrain int `toml:"pretrain" default:"8000" range:"[1,1e7]"`
	// Train is the number of photos in the training set.
	Train int `toml:"train" default:"4000" range:"[1,1e7]"`
	// Val is the number of photos in the validation set.
	Val int `toml:"val" default:"500" range:"[1,1e7]"`
	// Tune is the number of photos, like those of the validation set, to choose settings
	// with.
	Tune int `toml:"tune" default:"0" range:"[0,1e7]" json:",omitempty"`
	// Texts is the number of scenes that the training captions describe, each in five
	// captions. If it is 0, the captions describe the training photos. Otherwise they
	// describe the scenes of text_seed, of which no photos are rendered: captions and
	// photos are two separate sets, and there are no pairs to train on.
	Texts int `toml:"texts" default:"0" range:"[0,1e7]" source:"the paper: future work" json:",omitempty"`
	// TextSeed is the seed of those scenes. The default is the seed of the photos, so that
	// the captions of the training photos are among them.
	TextSeed int `toml:"text_seed" range:"[0,1e15]" source:"the paper: future work" json:",omitempty"`
	// Bare leaves out the other things around those that a photo is of, which most captions
	// do not mention: the same photos, of which captions say more. It is for experiments on
	// the modality gap.
	Bare bool `toml:"bare" default:"false" source:"Schrodi et al. 2024: information imbalance" json:",omitempty"`
}

// Data is the data to train on and the photos to caption.
type Data struct {
	// TrainAnnotations is the COCO captions file of the training set. The default is
	// the file in the rendered data set if the configuration has [world].
	TrainAnnotations string `toml:"train_annotations" source:"the paper: COCO train2014"`
	// TrainImages is the folder of the training photos. The default is the folder in
	// the rendered data set if the configuration has [world].
	TrainImages string `toml:"train_images" source:"the paper: COCO train2014"`
	// ValAnnotations is the COCO captions file of the validation set. The default is
	// the file in the rendered data set if the configuration has [world].
	ValAnnotations string `toml:"val_annotations" source:"the paper: COCO val2014"`
	// ValImages is the folder of the validation photos. The default is the folder in
	// the rendered data set if the configuration has [world].
	ValImages string `toml:"val_images" source:"the paper: COCO val2014"`
	// Karpathy is the file of Karpathy's split of COCO (dataset_coco.json), which then
	// determines the training and validation sets. If it is empty, COCO's own split is
	// used.
	Karpathy string `toml:"karpathy"`
	// Photos is a folder of photos without captions. Together with captions, it
	// replaces the training set.
	Photos string `toml:"photos" source:"the paper: future work"`
	// Captions is a file of captions: a text file with one per line, or any other
	// that features --captions reads (docs/formats.md). Together with photos, it
	// replaces the training set.
	Captions string `toml:"captions" source:"the paper: future work"`
	// ClipCap is a file of features and captions written by ClipCap's parse_coco.py
	// (such as oscar_split_ViT-B_32_train.pkl). It replaces the training set, so that
	// no training photos are needed. Its features must come from the CLIP in
	// clip.weights. The file is only read; no code in it is executed.
	ClipCap string `toml:"clipcap" source:"ClipCap: train.py --data"`
	// Pairing is the choice of photos and captions for unpaired training: "paper" uses
	// the whole training set, as the paper does, so that the captions of a photo are
	// present but not known to belong to it; "disjoint" uses the photos of one half of
	// the training set and the captions of the other half.
	Pairing string `toml:"pairing" default:"paper" choices:"paper,disjoint" source:"the paper"`
	// Overlap is the share of the photos used with pairing = "disjoint" whose captions are
	// used too, in place of captions of the other half. The sizes of both sets stay the
	// same: 0 is disjoint, and with 1 the photos and the captions are those of one half.
	Overlap float64 `toml:"overlap" default:"0" range:"[0,1]"`
	// PhotoLimit is the number of training photos for unpaired training, selected at
	// random by the seed; 0 means all.
	PhotoLimit int `toml:"photo_limit" default:"0" range:"[0,1e9]"`
	// CaptionLimit is the number of training captions for unpaired training and for text
	// decoders, selected at random by the seed; 0 means all.
	CaptionLimit int `toml:"caption_limit" default:"0" range:"[0,1e9]"`
	// MaxBad is the largest share of bad inputs to accept: photos that are missing or
	// unreadable, and captions that are empty or refer to an unknown photo. Bad inputs
	// are listed and skipped; if their share is larger, the run stops.
	MaxBad float64 `toml:"max_bad" default:"0.01" range:"[0,1]"`
	// ValLimit is the number of validation photos to caption, selected at random by the
	// seed; 0 means all.
	ValLimit int `toml:"val_limit" default:"0" range:"[0,1e9]"`
}

// CLIP is the encoder of photos and texts.
type CLIP struct {
	// Weights is the CLIP weights file or folder. If it is empty, a small CLIP is
	// trained as configured in [train.clip], which requires [world].
	Weights string `toml:"weights" source:"Table 1: ViT-B/32"`
	// Config is the configuration of clip.weights: a config.json of transformers, an
	// open_clip_config.json, or the name of an architecture, such as ViT-H-14 or
	// ViT-B/32 (docs/models.md). If it is empty, the file beside the weights is used.
	Config string `toml:"config"`
}

// GPT2 is the language model of the decoder.
type GPT2 struct {
	// Weights is the GPT-2 weights file or folder. If it is empty, a small GPT-2 is
	// trained as configured in [train.gpt2], which requires [world].
	Weights string `toml:"weights" source:"the paper: GPT-2 small"`
}

// Train configures the trainings.
type Train struct {
	CLIP     TrainCLIP     `toml:"clip"`
	GPT2     TrainGPT2     `toml:"gpt2"`
	Decoder  TrainDecoder  `toml:"decoder"`
	CycleGAN TrainCycleGAN `toml:"cyclegan"`
}

// TrainCLIP is the architecture and training of a small CLIP, which is used if
// clip.weights is empty.
type TrainCLIP struct {
	// ImageEncoder is the architecture of the image encoder: "vit", a vision transformer, or
	// "resnet", OpenAI's ModifiedResNet. A small ResNet learns shapes from fewer photos.
	ImageEncoder string `toml:"image_encoder" default:"vit" choices:"vit,resnet" source:"CLIP"`
	// Width is the width of the image encoder. That of a vision transformer must be a
	// multiple of 64, the width of an attention head; that of a ResNet is the width of its
	// first stage, and must be even (RN50: 64).
	Width int `toml:"width" default:"192" range:"[2,16384]"`
	// Layers is the number of layers of a vision transformer, or of blocks in each of the
	// four stages of a ResNet.
	Layers int `toml:"layers" default:"4" range:"[1,1000]"`
	// Patch is the width and height of a patch of a vision transformer in pixels; it must
	// divide train.clip.image.
	Patch int `toml:"patch" default:"16" range:"[1,1024]"`
	// Image is the width and height in pixels of the encoder's input. That of a ResNet must
	// be a multiple of 32.
	Image int `toml:"image" default:"128" range:"[1,4096]"`
	// Text names the weights of a CLIP whose text encoder this one has, with its vocabulary
	// and the width of its features. It is not trained further, as in locked-image tuning
	// (LiT: Zhai et al. 2022) with images and texts exchanged. If it is empty, both encoders
	// are trained.
	Text string `toml:"text"`
	// TextWidth is the width of the text encoder; it must be a multiple of 64, the
	// width of an attention head.
	TextWidth int `toml:"text_width" default:"128" range:"[64,16384]"`
	// TextLayers is the number of layers of the text encoder.
	TextLayers int `toml:"text_layers" default:"4" range:"[1,1000]"`
	// Vocab is the vocabulary size. The vocabulary is the first entries of CLIP's, and its
	// two special tokens; with fewer than all 49408, words are split into more tokens.
	Vocab int `toml:"vocab" default:"49408" range:"[514,49408]" source:"CLIP"`
	// EmbedDim is the width of the features.
	EmbedDim int `toml:"embed_dim" default:"512" range:"[1,16384]" source:"Table 2"`
	// Epochs is the number of passes over the photos.
	Epochs int `toml:"epochs" default:"10" range:"[1,1e6]"`
	// Batch is the number of photos per step, each with one of its captions.
	Batch int `toml:"batch" default:"128" range:"[2,1e6]"`
	// LR is the peak learning rate of AdamW.
	LR float64 `toml:"lr" default:"5e-4" range:"(0,10]" source:"CLIP: ViT-B/32"`
	// WeightDecay is the weight decay of parameters with two or more dimensions; the
	// others do not decay.
	WeightDecay float64 `toml:"weight_decay" default:"0.2" range:"[0,10]" source:"CLIP"`
	// WarmupSteps is the number of steps over which the learning rate rises from 0 to
	// its peak, before it falls to 0 along a cosine.
	WarmupSteps int `toml:"warmup_steps" default:"100" range:"[0,1e9]"`
	// Temperature is the initial temperature, by which cosines are divided. It is learned,
	// but does not fall below 0.01. A low one keeps photos and texts apart (the modality
	// gap): small differences of cosines suffice then to tell photos from each other.
	Temperature float64 `toml:"temperature" default:"0.07" range:"[0.01,10]" source:"CLIP"`
	// Dtype is the precision to compute in: "f32", "bf16" with autocast, or "auto": bf16
	// if the device has instructions for it, and f32 otherwise. The weights are always
	// f32.
	Dtype string `toml:"dtype" default:"f32" choices:"auto,f32,bf16"`
	// CheckpointEvery is the number of steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"200" range:"[1,1e9]"`
}

// TrainGPT2 is the architecture and training of a small GPT-2, which is used if
// gpt2.weights is empty.
type TrainGPT2 struct {
	// Width is the width of the embeddings; it must be a multiple of 64, the width of
	// an attention head.
	Width int `toml:"width" default:"192" range:"[64,16384]"`
	// Layers is the number of transformer blocks.
	Layers int `toml:"layers" default:"4" range:"[1,1000]"`
	// Positions is the maximum sequence length: the prefix and the tokens of a
	// caption.
	Positions int `toml:"positions" default:"128" range:"[2,65536]"`
	// Epochs is the number of passes over the captions.
	Epochs int `toml:"epochs" default:"3" range:"[1,1e6]"`
	// Batch is the number of windows of text per step.
	Batch int `toml:"batch" default:"32" range:"[1,1e6]"`
	// LR is the peak learning rate of AdamW.
	LR float64 `toml:"lr" default:"1e-3" range:"(0,10]"`
	// WarmupSteps is the number of steps over which the learning rate rises from 0 to
	// its peak, before it falls to 0 along a cosine.
	WarmupSteps int `toml:"warmup_steps" default:"100" range:"[0,1e9]"`
	// Dtype is the precision to compute in: "f32", "bf16" with autocast, or "auto": bf16
	// if the device has instructions for it, and f32 otherwise. The weights are always
	// f32.
	Dtype string `toml:"dtype" default:"f32" choices:"auto,f32,bf16"`
	// CheckpointEvery is the number of steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"200" range:"[1,1e9]"`
}

// TrainDecoder is the architecture and training of the text decoder. The defaults are
// those of the paper's Table 1 and, where it does not say, of ClipCap's train.py.
type TrainDecoder struct {
	// Mapper is the network that turns a feature into a prefix: a transformer or an
	// MLP.
	Mapper string `toml:"mapper" default:"transformer" choices:"transformer,mlp" source:"Table 1"`
	// PrefixLength is the number of prefix embeddings that GPT-2 receives.
	PrefixLength int `toml:"prefix_length" default:"40" range:"[1,1024]" source:"Table 1"`
	// ClipLength is the number of tokens that the transformer mapper expands a feature
	// to.
	ClipLength int `toml:"clip_length" default:"40" range:"[1,1024]" source:"Table 1"`
	// Layers is the number of layers of the transformer mapper.
	Layers int `toml:"layers" default:"8" range:"[1,1000]" source:"Table 1"`
	// Epochs is the number of passes over the captions.
	Epochs int `toml:"epochs" default:"20" range:"[1,1e6]" source:"Table 1"`
	// Batch is the number of captions per step.
	Batch int `toml:"batch" default:"64" range:"[1,1e6]" source:"Table 1"`
	// LR is the peak learning rate of AdamW.
	LR float64 `toml:"lr" default:"2e-5" range:"(0,10]" source:"ClipCap"`
	// WarmupSteps is the number of steps over which the learning rate rises from 0 to
	// its peak, before it falls linearly to 0.
	WarmupSteps int `toml:"warmup_steps" default:"5000" range:"[0,1e9]" source:"ClipCap"`
	// FreezeGPT2 freezes GPT-2, so that only the mapper is trained; if it is false,
	// GPT-2 is trained as well.
	FreezeGPT2 bool `toml:"freeze_gpt2" default:"true" source:"Table 1"`
	// NormalizePrefix scales features to length 1 before they enter the mapper.
	NormalizePrefix bool `toml:"normalize_prefix" default:"false" source:"ClipCap"`
	// Dtype is the precision to compute in: "f32", "bf16" with autocast, or "auto": bf16
	// if the device has instructions for it, and f32 otherwise. The weights are f32,
	// except those of a frozen GPT-2, which may be bf16.
	Dtype string `toml:"dtype" default:"f32" choices:"auto,f32,bf16" source:"ClipCap"`
	// CheckpointEvery is the number of steps between checkpoints, each with a
	// validation.
	CheckpointEvery int `toml:"checkpoint_every" default:"1000" range:"[1,1e9]"`
}

// TrainCycleGAN is the training of the latent CycleGAN. The defaults are those of the
// paper's Table 2 and, where it does not say, of the CycleGAN paper (Zhu et al. 2017).
type TrainCycleGAN struct {
	// Epochs is the number of passes over the larger of the two sets of features.
	Epochs int `toml:"epochs" default:"20" range:"[1,1e6]" source:"Table 2"`
	// Layers is the number of linear layers in each generator.
	Layers int `toml:"layers" default:"4" range:"[1,64]" source:"Table 2" json:",omitempty"`
	// Batch is the number of image features and of text features per step.
	Batch int `toml:"batch" default:"64" range:"[1,1e6]" source:"Table 2"`
	// LR is the learning rate of Adam, for generators and discriminators.
	LR float64 `toml:"lr" default:"2e-4" range:"(0,10]" source:"Zhu et al."`
	// Beta1 is Adam's coefficient for the running average of the gradient.
	Beta1 float64 `toml:"beta1" default:"0.5" range:"[0,1)" source:"Zhu et al."`
	// Beta2 is Adam's coefficient for the running average of the squared gradient.
	Beta2 float64 `toml:"beta2" default:"0.999" range:"[0,1)" source:"Zhu et al."`
	// DecayFrom is the epoch, counted from 0, from which the learning rate falls
	// linearly to 0; if it equals epochs, the rate is constant. The default is half of
	// epochs, rounded down.
	DecayFrom int `toml:"decay_from" range:"[0,1e6]" source:"Zhu et al."`
	// Adversarial is the adversarial loss: "least-squares", or "bce" for binary
	// cross-entropy.
	Adversarial string `toml:"adversarial" default:"least-squares" choices:"least-squares,bce" source:"Zhu et al."`
	// CycleWeight is the weight of the two L1 cycle losses.
	CycleWeight float64 `toml:"cycle_weight" default:"10" range:"[0,1e6]" source:"Zhu et al."`
	// IdentityWeight is the weight of the two identity losses, relative to
	// cycle_weight (lambda_identity in the CycleGAN authors' code).
	IdentityWeight float64 `toml:"identity_weight" default:"0.5" range:"[0,1e6]" source:"Zhu et al."`
	// Pool is the number of past fakes to keep for the discriminators; 0 disables the
	// pool.
	Pool int `toml:"pool" default:"50" range:"[0,1e6]" source:"Zhu et al."`
	// DiscHalved halves the discriminators' losses.
	DiscHalved bool `toml:"disc_halved" default:"true" source:"Zhu et al."`
	// Normalize is the normalization of the networks' inputs: "none" passes features
	// as the decoder receives them (at length 1 with train.decoder.normalize_prefix);
	// "standard" scales each dimension to mean 0 and standard deviation 1, which is
	// folded into the generators when they are saved.
	Normalize string `toml:"normalize" default:"none" choices:"none,standard"`
	// CheckpointEvery is the number of steps between checkpoints.
	CheckpointEvery int `toml:"checkpoint_every" default:"5000" range:"[1,1e9]"`
}

// Bridges is the list of bridges to compare, and their settings. A bridge is a way to
// turn image features into inputs of a text decoder.
type Bridges struct {
	// Use is the list of bridges, in the order of the table. clipcap is supervised and
	// serves as the ceiling.
	Use []string `toml:"use" default:"direct,cyclegan" choices:"bridges" source:"Table 3"`
	// Settings maps keys to the settings that bridges declare (see package bridge).
	Settings map[string]float64 `toml:"-"`
}

// Caption configures how captions are decoded.
type Caption struct {
	// Decode is the decoding method: "beam" for ClipCap's beam search,
	// "beam-transformers" for that of transformers' generate, or "greedy" for the most
	// probable token at each step.
	Decode string `toml:"decode" default:"beam" choices:"beam,beam-transformers,greedy" source:"ClipCap"`
	// Beam is the number of beams; at least 2 with "beam-transformers".
	Beam int `toml:"beam" default:"5" range:"[1,1000]" source:"ClipCap"`
	// LengthPenalty is the exponent of a caption's length, by which "beam-transformers"
	// divides its log-probability.
	LengthPenalty float64 `toml:"length_penalty" default:"1" range:"[-10,10]"`
	// EarlyStopping is the point at which "beam-transformers" ends, once as many captions
	// have ended as there are beams: at once ("true"), or when no better one is likely
	// ("false") or possible ("never").
	EarlyStopping string `toml:"early_stopping" default:"false" choices:"false,true,never"`
	// MaxTokens is the maximum length of a caption in tokens, including the full stop.
	MaxTokens int `toml:"max_tokens" default:"67" range:"[1,1024]" source:"ClipCap"`
	// Batch is the number of photos to caption at once.
	Batch int `toml:"batch" default:"16" range:"[1,1e6]"`
}

// Eval configures what is measured and shown.
type Eval struct {
	// Metrics is the list of metrics to score captions with. METEOR needs the data in
	// meteor_data.
	Metrics []string `toml:"metrics" default:"bleu,rouge,cider,meteor" choices:"bleu,rouge,cider,meteor" source:"Table 3"`
	// Examples is the number of photos to show in the report, selected at random by the
	// seed.
	Examples int `toml:"examples" default:"12" range:"[0,1000]" source:"Appendix A"`
	// MeteorData is the folder of METEOR's data. The default is where `make
	// meteor-data` puts it.
	MeteorData string `toml:"meteor_data"`
}
