//! A layer's experts, read one by one from the forms that files have them in.

use candle_core::Tensor;
use forebay_kernels::{AnyGate, Experts, Linear};

use crate::error::EngineError;
use crate::families::decoder_tensors::{Matrix, Named};
use crate::families::expert_config::ExpertConfig;

/// How a file names a layer's experts, `EXPERTS` being `layers.N.mlp.experts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `EXPERTS.E.gate_proj.weight`, `up_proj` and `down_proj`: tensors of each expert.
    Each,
    /// `EXPERTS.gate_proj.weight`, `up_proj` and `down_proj`: all experts' in one tensor, as in a GGUF.
    Stacked,
    /// `EXPERTS.gate_up_proj` and `down_proj`: as `Stacked`, the gate and what it multiplies in one tensor.
    Joined,
}

/// Experts that are being read.
struct Reader<'a> {
    named: &'a Named<'a>,
    config: &'a ExpertConfig,
    hidden: usize,
    /// `layers.N.mlp.experts`
    experts: String,
    form: Form,
}

/// Reads the experts of layer `index`, no two at once but as they are multiplied.
pub(super) fn load(
    config: &ExpertConfig,
    gate: AnyGate,
    hidden: usize,
    index: usize,
    named: &Named<'_>,
) -> Result<Experts, EngineError> {
    let experts = format!("layers.{index}.mlp.experts");
    let form = if named.contains(&format!("{experts}.gate_proj.weight")) {
        Form::Stacked
    } else if config.alternates || named.contains(&format!("{experts}.gate_up_proj")) {
        Form::Joined
    } else {
        Form::Each
    };
    let reader = Reader { named, config, hidden, experts, form };
    let mut up = Vec::with_capacity(config.count);
    let mut down = Vec::with_capacity(config.count);
    for expert in 0..config.count {
        up.push(reader.up(expert)?);
        down.push(reader.down(expert)?);
    }
    Ok(Experts::new(up, gate, down)?)
}

impl Reader<'_> {
    /// An expert's gate, and then what it multiplies.
    fn up(&self, expert: usize) -> Result<Linear, EngineError> {
        let [outputs, inputs] = [self.config.inner, self.hidden];
        let parts = ["gate_proj", "up_proj"];
        let (matrices, biases) = match self.form {
            Form::Each | Form::Stacked => {
                let matrix = |part| self.matrix(part, expert, [outputs, inputs]);
                let bias = |part| self.bias(part, expert, outputs);
                let matrices =
                    parts.into_iter().map(matrix).collect::<Result<Vec<_>, EngineError>>();
                (matrices?, parts.into_iter().map(bias).collect())
            }
            Form::Joined => {
                let joined = self.matrix("gate_up_proj", expert, [2 * outputs, inputs])?;
                let bias = self.bias("gate_up_proj", expert, 2 * outputs);
                (vec![self.apart(joined)?], vec![bias])
            }
        };
        let biases: Vec<Tensor> =
            biases.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let bias = (!biases.is_empty()).then(|| Tensor::cat(&biases, 0)).transpose()?;
        let bias = match bias {
            Some(bias) if self.alternates() => Some(rows_apart(&bias)?),
            bias => bias,
        };
        self.named.of_matrices(matrices, bias.as_ref())
    }

    fn down(&self, expert: usize) -> Result<Linear, EngineError> {
        let matrix = self.matrix("down_proj", expert, [self.hidden, self.config.inner])?;
        let bias = self.bias("down_proj", expert, self.hidden)?;
        self.named.of_matrices(vec![matrix], bias.as_ref())
    }

    /// Whether rows of the gate and of what it multiplies alternate in the file.
    fn alternates(&self) -> bool {
        self.config.alternates && self.form == Form::Joined
    }

    fn apart(&self, matrix: Matrix) -> Result<Matrix, EngineError> {
        if !self.alternates() {
            return Ok(matrix);
        }
        Ok(match matrix {
            Matrix::Blocks(blocks) => Matrix::Blocks(blocks.rows_apart()),
            Matrix::Plain(weight) => Matrix::Plain(rows_apart(&weight)?),
        })
    }

    fn matrix(&self, part: &str, expert: usize, sizes: [usize; 2]) -> Result<Matrix, EngineError> {
        let Self { named, experts, .. } = self;
        let [outputs, inputs] = sizes;
        let stack = [self.config.count, outputs, inputs];
        match self.form {
            Form::Each => named.matrix(&format!("{experts}.{expert}.{part}.weight"), sizes),
            Form::Stacked => named.matrix_of(&format!("{experts}.{part}.weight"), stack, expert),
            Form::Joined => {
                let name = format!("{experts}.{part}");
                // Blocks lie along the inputs in any case.
                if self.config.alternates && !named.has_blocks(&name) {
                    let turned = named.entry(&name, &[stack[0], inputs, outputs], expert)?;
                    return Ok(Matrix::Plain(turned.t()?.contiguous()?));
                }
                named.matrix_of(&name, stack, expert)
            }
        }
    }

    fn bias(
        &self,
        part: &str,
        expert: usize,
        outputs: usize,
    ) -> Result<Option<Tensor>, EngineError> {
        let Self { named, experts, config, .. } = self;
        if !config.has_bias {
            return Ok(None);
        }
        let stack = [config.count, outputs];
        Ok(Some(match self.form {
            Form::Each => named.tensor(&format!("{experts}.{expert}.{part}.bias"), &[outputs])?,
            Form::Stacked => named.entry(&format!("{experts}.{part}.bias"), &stack, expert)?,
            Form::Joined => named.entry(&format!("{experts}.{part}_bias"), &stack, expert)?,
        }))
    }
}

/// Rows 0, 2, 4 and so on, and then rows 1, 3, 5 and so on.
fn rows_apart(tensor: &Tensor) -> Result<Tensor, EngineError> {
    let rows = tensor.dim(0)? as u32;
    let order: Vec<u32> = (0..rows).step_by(2).chain((1..rows).step_by(2)).collect();
    Ok(tensor.index_select(&Tensor::new(order, tensor.device())?, 0)?)
}
