//! A model that cannot run is refused when it is loaded, an item that cannot be computed when it is reached;
//! each with a typed error that names what is wrong.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{load_f32, tiny_copy, tiny_folder};
use forebay_engine::{DType, Device, EngineError, Finish, LoadOptions, PackedBatch, load};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn load_error(folder: &Path) -> EngineError {
    load(folder, &LoadOptions::default()).err().unwrap()
}

/// Replaces text in a file of the model, and gives the error of loading it.
fn error_after_edit(file: &str, from: &str, to: &str) -> EngineError {
    let folder = tiny_copy();
    let path = folder.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    fs::write(&path, text.replace(from, to)).unwrap();
    load_error(folder.path())
}

/// Rewrites the weights with one tensor left out or changed, and gives the error of loading them.
fn error_after_tensor_edit(name: &str, replacement: Option<(Dtype, Vec<usize>)>) -> EngineError {
    let folder = tiny_copy();
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<(&str, TensorView<'_>)> =
        whole.iter().filter(|(other, _)| *other != name).collect();
    let data;
    if let Some((dtype, shape)) = replacement {
        data = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
        tensors.push((name, TensorView::new(dtype, shape, &data).unwrap()));
    }
    fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    load_error(folder.path())
}

#[test]
fn other_architectures_are_refused_by_name_with_those_supported() {
    let error = error_after_edit("config.json", "\"bert\"", "\"t5\"");
    assert!(matches!(&error, EngineError::NotSupported { field: "model_type", .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("t5") && message.contains("supported: bert"), "{message}");
}

#[test]
fn other_activations_and_poolings_are_refused_by_name() {
    let error = error_after_edit("config.json", "\"gelu\"", "\"mish\"");
    assert!(matches!(&error, EngineError::NotSupported { field: "hidden_act", .. }), "{error}");
    let error = error_after_edit(
        "1_Pooling/config.json",
        "\"pooling_mode_cls_token\": false",
        "\"pooling_mode\": \"attention\"",
    );
    assert!(matches!(&error, EngineError::NotSupported { field: "pooling_mode", .. }), "{error}");
    let error = error_after_edit("modules.json", "models.Normalize", "models.LSTM");
    assert!(error.to_string().contains("sentence_transformers.models.LSTM"), "{error}");
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let error =
        error_after_edit("config.json", "\"num_attention_heads\": 2", "\"num_attention_heads\": 3");
    assert!(matches!(error, EngineError::Config { .. }), "{error}");
    let error =
        error_after_edit("config.json", "\"num_attention_heads\": 2", "\"num_attention_heads\": 0");
    assert!(matches!(error, EngineError::Config { .. }), "{error}");
}

#[test]
fn broken_json_is_refused_with_its_file() {
    for file in
        ["config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"]
    {
        let folder = tiny_copy();
        fs::write(folder.path().join(file), "{\"vocab_size\": ").unwrap();
        let error = load_error(folder.path());
        assert!(
            matches!(&error, EngineError::Json { path, .. } if path.ends_with(file)),
            "{error}"
        );
    }
    let folder = tiny_copy();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(matches!(load_error(folder.path()), EngineError::Tokenizer { .. }));
}

/// The tokenizers library panics at these; the fuzzer found them.
#[test]
fn a_tokenizer_file_that_its_library_chokes_on_is_refused_by_name() {
    let original = fs::read_to_string(tiny_copy().path().join("tokenizer.json")).unwrap();
    let (before, _) = original.split_once("\"decoder\":").unwrap();
    for decoder in ["?", "{\"type\": "] {
        let folder = tiny_copy();
        let broken = format!("{before}\"decoder\": {decoder}");
        fs::write(folder.path().join("tokenizer.json"), broken).unwrap();
        let error = load_error(folder.path());
        assert!(matches!(&error, EngineError::Tokenizer { .. }), "{error}");
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = tiny_copy();
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = load_error(folder.path());
        assert!(
            matches!(&error, EngineError::File { path, .. } if path.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let name = "encoder.layer.1.output.dense.bias";
    let error = error_after_tensor_edit(name, None);
    assert!(
        matches!(&error, EngineError::TensorMissing { name: missing, .. } if missing == name),
        "{error}"
    );
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let name = "encoder.layer.0.attention.self.key.weight";
    match error_after_tensor_edit(name, Some((Dtype::F32, vec![64, 32]))) {
        EngineError::TensorShape { name: wrong, expected, actual, .. } => {
            assert_eq!((wrong.as_str(), expected, actual), (name, vec![64, 64], vec![64, 32]));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_tensor_of_another_type_is_named() {
    let name = "embeddings.LayerNorm.bias";
    let error = error_after_tensor_edit(name, Some((Dtype::I32, vec![64])));
    assert!(
        matches!(&error, EngineError::TensorDType { name: wrong, .. } if wrong == name),
        "{error}"
    );
}

#[test]
fn weights_cut_short_are_refused_wherever_they_are_cut() {
    let whole = fs::read(tiny_folder().join("model.safetensors")).unwrap();
    for kept in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        let folder = tiny_copy();
        fs::write(folder.path().join("model.safetensors"), &whole[..kept]).unwrap();
        let error = load_error(folder.path());
        assert!(matches!(error, EngineError::Safetensors { .. }), "{kept} bytes: {error}");
    }
}

#[test]
fn devices_and_types_that_are_not_built_in_are_refused() {
    let cuda = LoadOptions { device: Device::Cuda(0), ..LoadOptions::default() };
    assert!(matches!(
        load(&tiny_folder(), &cuda).err().unwrap(),
        EngineError::DeviceNotBuiltIn(_) | EngineError::DeviceUnavailable { .. }
    ));
    let half = LoadOptions { dtype: Some(DType::F16), ..LoadOptions::default() };
    assert!(matches!(
        load(&tiny_folder(), &half).err().unwrap(),
        EngineError::DTypeNotSupported { .. }
    ));
}

#[test]
fn an_item_that_cannot_be_computed_is_named_and_the_others_can_go_on() {
    let mut model = load_f32(&tiny_folder());
    let too_long = vec![5; 131];
    let cut = |dimensions| Finish { dimensions: Some(dimensions), ..Finish::default() };
    for (ids, finish) in [
        (&[2, 2000, 3][..], Finish::default()),
        (&too_long[..], Finish::default()),
        (&[2, 3][..], cut(0)),
        (&[2, 3][..], cut(65)),
    ] {
        let mut batch = PackedBatch::new();
        batch.push(&[2, 61, 3], Finish::default());
        batch.push(ids, finish);
        let error = model.engine.encoder().unwrap().compute(&batch).unwrap_err();
        assert!(matches!(error, EngineError::Item { index: 1, .. }), "{error}");
    }
    let mut batch = PackedBatch::new();
    batch.push(&[2, 61, 3], Finish::default());
    assert_eq!(model.engine.encoder().unwrap().compute(&batch).unwrap().rows().len(), 1);
}
