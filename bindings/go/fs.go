//go:build cgo

package mmopt

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// copies puts files of a file system into a new temporary directory, as the C library reads paths.
type copies struct {
	fsys      fs.FS
	directory string
}

func newCopies(fsys fs.FS) (*copies, error) {
	directory, err := os.MkdirTemp("", "mmopt-")
	if err != nil {
		return nil, err
	}
	return &copies{fsys, directory}, nil
}

func (c *copies) remove() { _ = os.RemoveAll(c.directory) }

// add copies one file, and gives the copy's path.
func (c *copies) add(name string) (string, error) {
	from, err := c.fsys.Open(name)
	if err != nil {
		return "", absent(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(c.directory, path.Base(name)))
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return to.Name(), errors.Join(err, to.Close())
}

// addAll copies the files of a folder that are wanted.
func (c *copies) addAll(folder string, wanted func(name string) bool) error {
	entries, err := fs.ReadDir(c.fsys, folder)
	if err != nil {
		return absent(err)
	}
	for _, entry := range entries {
		if entry.IsDir() || !wanted(entry.Name()) {
			continue
		}
		if _, err := c.add(path.Join(folder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// named puts the names of the file system in place of those of the copies.
func (c *copies) named(err error, folder string) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	prefix := folder + "/"
	if folder == "." {
		prefix = ""
	}
	text := strings.ReplaceAll(e.Message, c.directory+string(filepath.Separator), prefix)
	return &Error{e.Code, strings.ReplaceAll(text, c.directory, folder)}
}

// fromFile runs f on a copy of one file that lasts as long as the call.
func fromFile[T any](fsys fs.FS, name string, f func(path string) (*T, error)) (*T, error) {
	c, err := newCopies(fsys)
	if err != nil {
		return nil, err
	}
	defer c.remove()
	file, err := c.add(name)
	if err != nil {
		return nil, err
	}
	made, err := f(file)
	if err != nil {
		return nil, c.named(err, path.Dir(name))
	}
	return made, nil
}

// ReadClassificationFS is ReadClassification from a file system, for example an embed.FS.
func ReadClassificationFS(fsys fs.FS, name string, options *CorpusOptions) (*Corpus, error) {
	return fromFile(fsys, name, func(path string) (*Corpus, error) {
		return ReadClassification(path, options)
	})
}

// ReadTokenClassificationFS is ReadTokenClassification from a file system.
func ReadTokenClassificationFS(fsys fs.FS, name string, labelsOf *Corpus) (*Corpus, error) {
	return fromFile(fsys, name, func(path string) (*Corpus, error) {
		return ReadTokenClassification(path, labelsOf)
	})
}

// ReadWordsFS is ReadWords from a file system.
func ReadWordsFS(fsys fs.FS, name string) (*Corpus, error) {
	return fromFile(fsys, name, ReadWords)
}

// ReadQuestionAnsweringFS is ReadQuestionAnswering from a file system.
func ReadQuestionAnsweringFS(fsys fs.FS, name string) (*Corpus, error) {
	return fromFile(fsys, name, ReadQuestionAnswering)
}

// ReadPlainTextFS is ReadPlainText from a file system.
func ReadPlainTextFS(fsys fs.FS, name string, sampleBy SampleBy) (*Corpus, error) {
	return fromFile(fsys, name, func(path string) (*Corpus, error) {
		return ReadPlainText(path, sampleBy)
	})
}

// LoadTokenizerFS loads a tokenizer from a directory of a file system.
func LoadTokenizerFS(fsys fs.FS, directory string) (*Tokenizer, error) {
	c, err := newCopies(fsys)
	if err != nil {
		return nil, err
	}
	defer c.remove()
	err = c.addAll(directory, func(name string) bool {
		switch name {
		case "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt",
			"special_tokens_map.json", "added_tokens.json", "config.json":
			return true
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	t, err := LoadTokenizer(c.directory)
	if err != nil {
		return nil, c.named(err, directory)
	}
	return t, nil
}

// ModelFromDirectoryFS is ModelFromDirectory from a file system. The files are copied to a
// temporary directory, which goes when the model is closed; close it after its trainer was created.
func ModelFromDirectoryFS(name string, fsys fs.FS, directory string) (*Model, error) {
	c, err := newCopies(fsys)
	if err != nil {
		return nil, err
	}
	err = c.addAll(directory, func(name string) bool {
		return path.Ext(name) == ".json" || path.Ext(name) == ".safetensors"
	})
	if err != nil {
		c.remove()
		return nil, err
	}
	m, err := ModelFromDirectory(name, c.directory)
	if err != nil {
		c.remove()
		return nil, c.named(err, directory)
	}
	m.resource.after = append(m.resource.after, c.remove)
	return m, nil
}

// ModelFromONNXFS is ModelFromONNX from a file system, for graphs whose weights are inside.
func ModelFromONNXFS(name string, fsys fs.FS, file string, loss *Loss) (*Model, error) {
	graph, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil, absent(err)
	}
	return ModelFromONNXBytes(name, graph, loss)
}
