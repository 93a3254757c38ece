// Package joblib says what a model file is without loading it. A joblib file
// is a pickle, and loading a pickle runs code; this package only reads. It
// walks the opcodes with a symbolic stack and never imports, calls or believes
// a declared length.
package joblib
