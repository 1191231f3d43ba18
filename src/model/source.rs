//! An opened model: configuration, weights and where they came from.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::chat::ChatTemplate;
use super::config::Config;
use super::embedded::{self, Embedded};
use super::error::ModelError;
use super::gguf::Gguf;
use super::names::{HF_LAYOUTS, Names};
use super::safetensors::Checkpoint;
use super::tensor::Tensor;
use super::tokenizer::Tokenizer;
use super::weights::{Layout, TensorStore, Weights};
use super::{config_gguf, config_hf, json};

pub use super::locate::resolve;

/// A model whose header has been checked and whose weights lie in mapped files.
pub struct Model {
    /// The file's or folder's name.
    pub id: String,
    pub path: PathBuf,
    pub config: Config,
    pub weights: Weights,
    /// `None` where the files have none: such a model runs on token ids.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// `None` where the files have none.
    pub chat_template: Option<ChatTemplate>,
    /// Numbers in all tensors; a tied head counts once.
    pub parameters: u64,
    /// The types that the weights are stored in, the most bytes first: `Q4_1+Q8_0+F32`.
    pub weight_types: String,
    files: Vec<PathBuf>,
    sha256: OnceLock<String>,
}

impl Model {
    /// Open a `.gguf` file or a Hugging Face folder.
    pub fn open(path: &Path) -> Result<Model, ModelError> {
        if let Some(embedded) = embedded::at(path) {
            return Model::open_embedded(embedded);
        }
        let metadata = std::fs::metadata(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        if metadata.is_dir() {
            Model::open_folder(path)
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            Err(ModelError::NotAModel { path: path.to_owned() })
        } else {
            Model::open_gguf(path)
        }
    }

    fn open_gguf(path: &Path) -> Result<Model, ModelError> {
        let gguf = Gguf::open(path)?;
        let embed = Names::Gguf.embed();
        if gguf.tensor(&embed).is_none() {
            return Err(ModelError::MissingTensor { name: embed });
        }
        let config = config_gguf::read(&gguf)?;
        let interleaved = config_gguf::interleaved_rope(&config);
        let weights = Weights::load(&config, &gguf, &Layout { names: Names::Gguf, interleaved })?;
        let tokenizer = Tokenizer::from_gguf(&gguf.metadata, config.vocab);
        let tokenizer = tokenizer.map_err(|problem| ModelError::Tokenizer { path: path.to_owned(), problem })?;
        let chat_template = ChatTemplate::from_gguf(&gguf.metadata, tokenizer.as_ref())
            .map_err(|problem| ModelError::Gguf { path: path.to_owned(), problem })?;
        let model = Model::new(path, vec![path.to_owned()], config, weights);
        Ok(Model { tokenizer: tokenizer.map(Arc::new), chat_template, ..model })
    }

    fn open_folder(path: &Path) -> Result<Model, ModelError> {
        let config_path = path.join("config.json");
        if !config_path.exists() {
            return Err(ModelError::NotAModel { path: path.to_owned() });
        }
        let mut config = config_hf::read(&json::read(&config_path)?)?;
        let generation = path.join("generation_config.json");
        if generation.exists() {
            let more = config_hf::ids_of(json::read(&generation)?.get("eos_token_id")).unwrap_or_default();
            config.eos.extend(more);
            config.eos.sort_unstable();
            config.eos.dedup();
        }
        let checkpoint = Checkpoint::open(path)?;
        let names = HF_LAYOUTS.into_iter().find(|names| checkpoint.contains(&names.embed()));
        let names = names.ok_or_else(|| ModelError::MissingTensor { name: HF_LAYOUTS[0].embed() })?;
        let weights = Weights::load(&config, &checkpoint, &Layout { names, interleaved: false })?;
        let files = std::iter::once(config_path).chain(checkpoint.files().map(Path::to_owned)).collect();
        let tokenizer = folder_tokenizer(path, config.vocab)?;
        let chat_template = ChatTemplate::from_folder(path)?;
        Ok(Model { tokenizer: tokenizer.map(Arc::new), chat_template, ..Model::new(path, files, config, weights) })
    }

    fn open_embedded(of: &'static Embedded) -> Result<Model, ModelError> {
        let path = of.path();
        let config = config_hf::read(&json::parse(&path, of.config)?)?;
        let checkpoint = Checkpoint::of_program(path.clone(), of.weights)?;
        let names = HF_LAYOUTS[0].clone();
        let weights = Weights::load(&config, &checkpoint, &Layout { names, interleaved: false })?;
        let tokenizer = Tokenizer::from_json(of.tokenizer, config.vocab);
        let tokenizer = tokenizer.map_err(|problem| ModelError::Tokenizer { path: path.clone(), problem })?;
        let model = Model::new(&path, Vec::new(), config, weights);
        let sha256 = OnceLock::from(of.sha256());
        Ok(Model { id: of.name.into(), tokenizer: Some(Arc::new(tokenizer)), sha256, ..model })
    }

    fn new(path: &Path, files: Vec<PathBuf>, config: Config, weights: Weights) -> Model {
        let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let id = name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        let of_depth = weights.residual.numbers();
        let parameters = weights.tensors().map(|t| t.rows as u64 * t.cols as u64).sum::<u64>() + of_depth;
        let weight_types = weight_types(&weights);
        let (path, sha256) = (path.to_owned(), OnceLock::new());
        let (tokenizer, chat_template) = (None, None);
        Model { id, path, config, weights, tokenizer, chat_template, parameters, weight_types, files, sha256 }
    }

    /// Hash of the model: of its one file, or, for a folder, of the list `sha256  name` of config and shards.
    /// Reads every byte the first time (98 MB: about 0.1 s), so nothing on the way to the first frame asks for it.
    pub fn sha256(&self) -> io::Result<&str> {
        if let Some(known) = self.sha256.get() {
            return Ok(known);
        }
        let hash = match self.files.as_slice() {
            [file] => sha256_of(file)?,
            files => {
                let mut list = String::new();
                for file in files {
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    // Writing to a String cannot fail.
                    let _ = writeln!(list, "{}  {name}", sha256_of(file)?);
                }
                hex(&Sha256::digest(list))
            }
        };
        Ok(self.sha256.get_or_init(|| hash))
    }
}

impl TensorStore for Gguf {
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        Ok(Gguf::tensor(self, name))
    }
}

fn folder_tokenizer(folder: &Path, embeddings: usize) -> Result<Option<Tokenizer>, ModelError> {
    let path = folder.join("tokenizer.json");
    if !path.exists() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_json(&json::read_bytes(&path)?, embeddings);
    tokenizer.map(Some).map_err(|problem| ModelError::Tokenizer { path, problem })
}

fn weight_types(weights: &Weights) -> String {
    let mut bytes: Vec<(&'static str, usize)> = Vec::new();
    for tensor in weights.tensors() {
        let name = tensor.dtype.name();
        match bytes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += tensor.data().len(),
            None => bytes.push((name, tensor.data().len())),
        }
    }
    bytes.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    bytes.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("+")
}

/// Hash of a whole file, as 64 hexadecimal digits.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
