package joblib

// Kind is what a file's content is. The kinds for which [Kind.IsModel] holds
// are the format strings of a ModelPack config.
type Kind string

// The kinds of files.
const (
	Joblib   Kind = "joblib"      // a pickle with joblib's arrays or compression
	Pickle   Kind = "pickle"      // any other pickle
	ONNX     Kind = "onnx"        // an ONNX ModelProto
	Skops    Kind = "skops"       // a skops archive
	XGBoost  Kind = "xgboost"     // xgboost's own JSON, UBJSON or binary
	LightGBM Kind = "lightgbm"    // lightgbm's own text
	CatBoost Kind = "catboost"    // catboost's own binary
	Keras    Kind = "keras"       // a Keras archive or HDF5 file
	Pointer  Kind = "lfs-pointer" // a Git LFS pointer: the file is elsewhere
	HTML     Kind = "html"        // a web page, as a login page saved under a model's name
	Zip      Kind = "zip"         // any other zip archive, also .npz
	JSON     Kind = "json"
	Text     Kind = "text"
	Empty    Kind = "empty"
	Unknown  Kind = "unknown"
)

// IsModel reports whether k is a format in which models are kept. A pickle
// may hold anything, see [Peek].
func (k Kind) IsModel() bool {
	switch k {
	case Joblib, Pickle, ONNX, Skops, XGBoost, LightGBM, CatBoost, Keras:
		return true
	}
	return false
}

// IsPickle reports whether k is unpickled to be used.
func (k Kind) IsPickle() bool { return k == Joblib || k == Pickle }
