// Package joblib says what a model file is without loading it. A joblib file
// is a pickle, and loading a pickle runs code; this package only reads. It
// walks the opcodes with a symbolic stack and never imports, calls or believes
// a declared length.
//
//	report, err := joblib.Inspect(file, joblib.Options{})
//	if report.Verdict.Refused(false) {
//		fmt.Println(report.Findings[0].Message)
//	}
//
// [Inspect] reads a file to its end, in one pass and without seeking, so that it
// can ride on the read that computes a digest: [Stream] inspects what is written
// to it. [Look] reads only the beginning, to tell models from other files.
//
// # The verdict
//
// A file passes if every global in it is known (policy/allow.txt), is used as
// its own library's pickles use it and with arguments that these have, and if
// the stream is one that joblib's and Python's picklers write. Everything else
// is something for a person ([Review]), or refused: [Dangerous] is what is known
// to run code, [Unverifiable] what cannot be followed. An error never passes,
// for the code before it has run by then.
//
// Pass says that no code path at load time was found. It does not say that the
// model is safe: not what it predicts, and not that the libraries which load it
// survive its bytes. [Options].Deep checks the nodes of scikit-learn's trees.
//
// # What it is
//
// Class, parts, parameters, versions, features and arrays are what the author
// of the file wrote into it. Strings may hold anything: quote them before they
// reach a terminal.
//
// # Limits
//
// At most 256 MiB are kept of what a file holds, in values of 8 bytes; 200
// million opcodes are walked, and 16 GiB of uncompressed bytes read. What needs
// more is unverifiable. Nothing is allocated from a declared length. The format
// is that of joblib from 0.10 on
// (https://github.com/joblib/joblib/blob/1.5.3/joblib/numpy_pickle.py) and of
// pickle's protocols 0 to 5
// (https://github.com/python/cpython/blob/v3.13.0/Lib/pickletools.py).
//
// Functions may be called concurrently.
package joblib
