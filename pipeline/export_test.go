package pipeline

// DeCapText decodes tokens as DeCap does.
var DeCapText = decapText

// HasInt8 says whether the processor has the instructions for int8.
var HasInt8 = &hasInt8
