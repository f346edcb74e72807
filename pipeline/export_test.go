package pipeline

// DeCapText decodes tokens as DeCap does.
var DeCapText = decapText
