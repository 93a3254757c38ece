package manifest

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Config is the ModelPack model config
// (https://github.com/modelpack/model-spec/blob/v0.0.7/docs/config.md), the
// part of it that galley writes.
type Config struct {
	Descriptor ModelDescriptor `json:"descriptor"`
	ModelFS    ModelFS         `json:"modelfs"`
	Config     ModelConfig     `json:"config"`
}

// ModelDescriptor is who and whence.
type ModelDescriptor struct {
	CreatedAt time.Time `json:"createdAt,omitzero"`
	Name      string    `json:"name,omitempty"`
	SourceURL string    `json:"sourceURL,omitempty"`
	Version   string    `json:"version,omitempty"`
	Revision  string    `json:"revision,omitempty"`
}

// ModelFS lists the diffIDs, the digests of the layers' uncompressed bytes, in
// layer order.
type ModelFS struct {
	Type    string          `json:"type"`
	DiffIDs []digest.Digest `json:"diffIds"`
}

// ModelConfig is what the model is.
type ModelConfig struct {
	Architecture string `json:"architecture,omitempty"` // the estimator's class
	Format       string `json:"format,omitempty"`       // joblib, pickle, onnx, …
}
