package storage

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"
)

// Create implements storage.Interface.
func (s *Store) Create(ctx context.Context, key string, obj, out runtime.Object, _ uint64) error {
	key, err := storage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	if version, err := s.versioner.ObjectResourceVersion(obj); err == nil && version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return err
	}
	data, err := runtime.Encode(s.opts.Codec, obj)
	if err != nil {
		return err
	}
	result, err := s.commit(ctx, key, 0, obj, data)
	if err != nil {
		return err
	}
	if !result.Succeeded {
		return storage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	return s.decode(data, result.Revision, out)
}

// commit encrypts data, the encoding of obj, and writes it under key if key is at
// revision expect.
func (s *Store) commit(ctx context.Context, key string, expect int64, obj runtime.Object, data []byte) (*CommitResult, error) {
	stored, err := s.opts.Transformer.TransformToStorage(ctx, data, value.DefaultContext(key))
	if err != nil {
		return nil, storage.NewInternalError(err)
	}
	m := Mutation{Key: key, Expect: expect, Value: Body(stored)}
	if index := s.opts.Index; index != nil {
		m.Terms = []TermChange{{Group: index.Group, Terms: index.Terms(obj)}}
	}
	result, err := s.backend.Commit(ctx, m)
	return result, unavailable(err)
}

// Delete implements storage.Interface.
func (s *Store) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, suggestion runtime.Object, opts storage.DeleteOptions,
) error {
	key, err := storage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	kind, err := conversion.EnforcePtr(out)
	if err != nil {
		return err
	}
	if opts.ExpectTransformOrDecodeError {
		suggestion = nil // only the stored value can show that it is corrupt
	}
	attempt, err := s.newAttempt(ctx, key, kind.Type(), suggestion, false, opts.ExpectTransformOrDecodeError)
	if err != nil {
		return err
	}
	for {
		retry, err := attempt.try(ctx, func(current *state) error {
			if err := preconditions.Check(key, current.object); err != nil {
				return err
			}
			return validate(ctx, current.object)
		})
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		result, err := s.backend.Commit(ctx, Mutation{Operation: Delete, Key: key, Expect: attempt.state.revision})
		if err != nil {
			return unavailable(err)
		}
		if !result.Succeeded {
			if err := attempt.reload(ctx, result.Current); err != nil {
				return err
			}
			continue
		}
		if opts.ExpectTransformOrDecodeError {
			return nil
		}
		return s.decode(attempt.state.data, result.Revision, out)
	}
}

// GuaranteedUpdate implements storage.Interface.
func (s *Store) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, update storage.UpdateFunc, suggestion runtime.Object,
) error {
	key, err := storage.PrepareKey(s.opts.ResourcePrefix, key, false)
	if err != nil {
		return err
	}
	kind, err := conversion.EnforcePtr(destination)
	if err != nil {
		return err
	}
	attempt, err := s.newAttempt(ctx, key, kind.Type(), suggestion, ignoreNotFound, false)
	if err != nil {
		return err
	}
	for {
		var updated runtime.Object
		retry, err := attempt.try(ctx, func(current *state) error {
			var err error
			updated, err = s.apply(key, current, preconditions, update)
			return err
		})
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		data, err := runtime.Encode(s.opts.Codec, updated)
		if err != nil {
			return err
		}
		unchanged, retry, err := attempt.unchanged(ctx, data)
		if err != nil {
			return err
		}
		if retry {
			continue
		}
		if unchanged {
			if err := s.backend.Confirm(ctx); err != nil {
				return unavailable(err)
			}
			return s.decode(attempt.state.data, attempt.state.revision, destination)
		}
		result, err := s.commit(ctx, key, attempt.state.revision, updated, data)
		if err != nil {
			return err
		}
		if !result.Succeeded {
			if err := attempt.reload(ctx, result.Current); err != nil {
				return err
			}
			continue
		}
		return s.decode(data, result.Revision, destination)
	}
}

func (s *Store) apply(key string, current *state, preconditions *storage.Preconditions, update storage.UpdateFunc) (runtime.Object, error) {
	if err := preconditions.Check(key, current.object); err != nil {
		return nil, err
	}
	updated, _, err := update(current.object, storage.ResponseMeta{ResourceVersion: uint64(current.revision)})
	if err != nil {
		return nil, err
	}
	return updated, s.versioner.PrepareObjectForStorage(updated)
}

// stateOf returns the state that a caller's object stands for.
func (s *Store) stateOf(obj runtime.Object) (*state, error) {
	version, err := s.versioner.ObjectResourceVersion(obj)
	if err != nil {
		return nil, err
	}
	st := &state{object: obj, revision: int64(version)}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, err
	}
	if st.data, err = runtime.Encode(s.opts.Codec, obj); err != nil {
		return nil, err
	}
	return st, s.versioner.UpdateObject(obj, version)
}

// newObject returns an empty object of kind.
func (s *Store) newObject(kind reflect.Type) runtime.Object {
	obj := reflect.New(kind).Interface().(runtime.Object)
	if u, ok := obj.(runtime.Unstructured); ok {
		return u.NewEmptyInstance()
	}
	return obj
}
