"""Operations on whole tensors: reductions, matrix products, layers and losses."""

from __future__ import annotations

from explorer.operations.table import whole

whole("sum", "Σ {self}", self="G to every element that was summed")
whole("mean", "Σ {self} / n", self="G/n to every element")
whole("prod", "Π {self}", self="G·(product of the other elements)")
whole("cumsum", "running sum of {self}", self="G summed from the end")
whole("var", "variance of {self}", self="G·2·({self} − mean)/(n − correction)")
whole("std", "standard deviation of {self}", self="G·({self} − mean)/(std·(n − correction))")
whole("norm linalg_vector_norm", "‖{self}‖", self="G·{self}/‖{self}‖ (2-norm)")
whole("max min amax amin", "an extreme of {self}", self="G at the extreme element, 0 elsewhere")
whole("logsumexp", "ln Σ e^{self}", self="G·softmax({self})")
whole("_softmax _safe_softmax", "softmax({self})", self="s·(G − Σ G·s), s = softmax({self})")
whole("_log_softmax", "log softmax({self})", self="G − softmax({self})·Σ G")
whole("mm", "{self}·{mat2}", self="G·{mat2}ᵀ", mat2="{self}ᵀ·G")
whole("bmm", "{self}·{mat2}, batch by batch", self="G·{mat2}ᵀ", mat2="{self}ᵀ·G")
whole("mv", "{self}·{vec}", self="G·{vec}ᵀ", vec="{self}ᵀ·G")
whole("dot", "Σ {self}·{tensor}", self="G·{tensor}", tensor="G·{self}")
whole("addmm", "{self} + {mat1}·{mat2}", self="G (summed over broadcast axes)", mat1="G·{mat2}ᵀ",
       mat2="{mat1}ᵀ·G")  # fmt: skip
whole("baddbmm", "{self} + {batch1}·{batch2}", self="G", batch1="G·{batch2}ᵀ", batch2="{batch1}ᵀ·G")
whole(
    "linear", "{input}·{weight}ᵀ + {bias}", input="G·{weight}", weight="Gᵀ·{input}", bias="G summed over rows"
)
whole("convolution", "{weight} slid over {input}", input="G slid back through {weight}",
       weight="{input} correlated with G", bias="G summed over batch and places")  # fmt: skip
whole(
    "max_pool2d_with_indices", "largest of each window of {self}", self="G at each window's largest element"
)
whole("avg_pool2d _adaptive_avg_pool2d", "mean of each window of {self}", self="G/n over each window")
whole("native_dropout", "{input}·mask/(1 − p)", input="G·mask/(1 − p)")
_NORMAL = "w/σ·(G − mean(G) − x̂·mean(G·x̂)), x̂ the normalised {input}"
whole("native_layer_norm native_batch_norm native_group_norm", "w·x̂ + b, x̂ = ({input} − mean)/σ",
       input=_NORMAL, weight="Σ G·x̂", bias="Σ G")  # fmt: skip
whole("mse_loss", "mean of ({self} − {target})²", self="G·2·({self} − {target})/n",
       target="−G·2·({self} − {target})/n")  # fmt: skip
whole(
    "nll_loss_forward nll_loss2d_forward",
    "−mean of {self} at the targets",
    self="−G/n at the targets, else 0",
)
whole("binary_cross_entropy", "−mean(t·ln {self} + (1 − t)·ln(1 − {self}))",
       self="G·({self} − t)/({self}·(1 − {self}))/n")  # fmt: skip
whole("binary_cross_entropy_with_logits", "cross entropy of σ({self})", self="G·(σ({self}) − t)/n")
whole("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention",
       "softmax({query}·{key}ᵀ/√d)·{value}", query="dS·{key}/√d", key="dSᵀ·{query}/√d",
       value="softmax(…)ᵀ·G")  # fmt: skip
