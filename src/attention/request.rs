//! What a caller asks for: which kernel, and what to return.

/// Who computes attention. All kernels give the same numbers up to rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernel {
    /// [`Fused`](Self::Fused) where it serves the request, [`Reference`](Self::Reference) elsewhere,
    /// and on software that plays a GPU (Mesa's lavapipe and the like), where it is the faster one.
    ///
    /// [`Backend`](Self::Backend) is not picked by itself: on the one wgpu device it was measured on,
    /// software Vulkan, it took as long as the reference (256 and 512 tokens, causal and full), and
    /// which kernel Burn runs there depends on Burn's `autotune` feature. On a GPU, measure and name
    /// it.
    #[default]
    Auto,
    /// Tensor operations, on any device, with everything that can be asked. Stores the weights:
    /// memory grows with `queries * keys`.
    ///
    /// A NaN or an infinity in a hidden key or value may reach outputs and gradients, as in every
    /// implementation by matrix products (0 times NaN is NaN).
    Reference,
    /// This crate's own operation for CPUs, and for GPUs with one of the features `wgpu`, `vulkan`,
    /// `metal`, `webgpu` or `cuda`. Holds two numbers a query besides its inputs and outputs, and reads
    /// no tile of keys that nobody sees. Panics on other devices, if weights are asked for, and on
    /// GPUs for f64.
    ///
    /// It computes in f32, or in f64 for tensors of that. Queries, keys and values in half precision,
    /// and what a cache keeps in fewer bits, are converted as they are read, a tile at a time; the
    /// output is converted behind. On a CPU a backward pass has all of them converted before; a GPU
    /// reads half precision where it has it, and keys and values in the queries' type.
    ///
    /// On a CPU it runs on the best instruction set that it finds: AVX-512, AVX2, NEON or none.
    Fused,
    /// Burn's own `attention` operation. Panics if the tensors are on an autodiff device (it would
    /// store all weights there), or if weights, a softcap, a bias, ALiBi or sinks are asked for.
    ///
    /// With Burn's `autotune` feature its GPU kernels may run, which this crate's tests have not seen.
    /// By their source (cubek 0.3.1) they take a row whose largest score lies below -6e4 for a dead
    /// one.
    Backend,
}

/// Who looks whether every token that enters a language model is in its vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenCheck {
    /// [`Host`](Self::Host) where the tokens lie in the host's memory (ndarray and flex),
    /// [`Device`](Self::Device) elsewhere.
    #[default]
    Auto,
    /// The host, before the pass: a token outside the vocabulary is an
    /// [`Error::Token`](crate::Error::Token). On a GPU this waits until the device has done all its
    /// work. Where the tokens come from the host anyway, look at them there, before they are sent.
    Host,
    /// The device, in the pass, for which nobody waits: the vector of a token outside the vocabulary
    /// is NaN, and with it the logits of every token that sees it, and the loss.
    Device,
    /// Nobody, for tokens that were looked at before. What another token does is the backend's to
    /// say: a panic, or the vector of some other token.
    Off,
}

/// What the caller of a pass asks for. Nothing of it changes the numbers, but for rounding.
///
/// ```
/// use burn_decoder::attention::Request;
///
/// let request = Request::new().with_weights(true);
/// assert!(request.weights);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Whether to return the attention weights.
    pub weights: bool,
    /// Which kernel computes the attention.
    pub kernel: Kernel,
    /// Of a language model: scores what comes after the last token of each row only.
    pub last_logits_only: bool,
    /// Of a language model: who looks whether every token is in the vocabulary.
    pub token_check: TokenCheck,
}

impl Request {
    /// No weights, the kernel chosen by device, all logits, checked tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the attention weights, of every layer and head where there are several.
    #[must_use]
    pub fn with_weights(mut self, weights: bool) -> Self {
        self.weights = weights;
        self
    }

    /// Names the attention kernel, to compare one with another.
    #[must_use]
    pub fn with_kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    /// Scores what comes after the last token of each row, and nothing else: `logits` are
    /// `[batch, 1, vocab_size]`. To generate behind a long prompt, no more is needed.
    #[must_use]
    pub fn with_last_logits_only(mut self) -> Self {
        self.last_logits_only = true;
        self
    }

    /// Says who looks whether every token is in the vocabulary.
    #[must_use]
    pub fn with_token_check(mut self, check: TokenCheck) -> Self {
        self.token_check = check;
        self
    }

    /// Takes the tokens as they are: [`TokenCheck::Off`].
    #[must_use]
    pub fn with_unchecked_tokens(self) -> Self {
        self.with_token_check(TokenCheck::Off)
    }
}
