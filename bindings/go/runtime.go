package mmopt

// #include <mmopt.h>
import "C"

// Version is the version of the loaded library, for example "0.1.0".
func Version() string { return C.GoString(C.mmopt_version()) }

// VersionNumber is major * 10000 + minor * 100 + patch of the loaded library.
func VersionNumber() uint32 { return uint32(C.mmopt_version_number()) }

// LoadRuntime loads ONNX Runtime from a file or directory; an empty path looks where the library
// usually lies. Creating a trainer does it too.
func LoadRuntime(path string) error {
	var a arena
	defer a.free()
	p := a.optional(path)
	return a.call(func() *C.mmopt_error { return C.mmopt_runtime_load(p) })
}

// RuntimeVersion is the version of the loaded ONNX Runtime, empty before it is loaded.
func RuntimeVersion() string { return C.GoString(C.mmopt_runtime_version()) }

// RuntimePath is the file of the loaded ONNX Runtime, empty before it is loaded.
func RuntimePath() string { return C.GoString(C.mmopt_runtime_path()) }

// Architecture is a family of models that the library can build, with its tokenizer.
type Architecture uint32

// The architectures.
const (
	BERT       Architecture = C.MMOPT_ARCHITECTURE_BERT
	GPT2       Architecture = C.MMOPT_ARCHITECTURE_GPT2
	RoBERTa    Architecture = C.MMOPT_ARCHITECTURE_ROBERTA
	DistilBERT Architecture = C.MMOPT_ARCHITECTURE_DISTILBERT
)

// ParseArchitecture finds an architecture by its published name, for example "gpt2".
func ParseArchitecture(name string) (Architecture, error) {
	var a arena
	defer a.free()
	found := Architecture(C.mmopt_architecture_from_name(a.text(name)))
	if a.err != nil || found == 0 {
		return 0, &Error{Code: NotFound, Message: "no architecture '" + name + "'"}
	}
	return found, nil
}

// String is the published name.
func (a Architecture) String() string {
	return C.GoString(C.mmopt_architecture_name(C.uint32_t(a)))
}
