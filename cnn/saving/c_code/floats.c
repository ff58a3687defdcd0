/* Each position of an axis as a weighted sum of positions of the input's axis. */
typedef struct {
    int length, count; /* of the input's axis and of the output's */
    const int *starts; /* where the taps of each position begin; one more for the end */
    const int *sources;
    const float *weights;
} sampling;

/* y = (x - shift) * scale, with one shift and one scale for each channel of a float image. */
static void prepare_floats(const float *x, const float *shift, const float *scale, int channels, int size, float *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = (x[c * size + i] - shift[c]) * scale[c];
        }
    }
}

/* y = (x - shift) * scale, with one shift and one scale for each channel of an image of bytes. */
static void prepare_bytes(const uint8_t *x, const float *shift, const float *scale, int channels, int size, float *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = ((float)x[c * size + i] - shift[c]) * scale[c];
        }
    }
}

/* Convolution with the weights (out_channels, channels / groups, kernel_height, kernel_width). */
static void convolve(const window *w, const float *weight, const float *bias, const float *x, float *y)
{
    const int group_channels = w->channels / w->groups, group_outputs = w->out_channels / w->groups;
    const int taps = w->kernel_height * w->kernel_width, size = w->height * w->width;
    int position = 0;
    for (int o = 0; o < w->out_channels; o++) {
        const float *kernels = weight + o * group_channels * taps;
        const float *images = x + o / group_outputs * group_channels * size;
        for (int i = 0; i < w->out_height; i++) {
            const int above = i * w->stride_down - w->top;
            const span rows = inside(above, w->kernel_height, w->dilation_down, w->height);
            for (int j = 0; j < w->out_width; j++) {
                const int before = j * w->stride_right - w->left;
                const span columns = inside(before, w->kernel_width, w->dilation_right, w->width);
                float sum = w->biases == 0 ? 0.0f : bias[w->biases == 1 ? o : position];
                for (int c = 0; c < group_channels; c++) {
                    for (int k = rows.begin; k < rows.end; k++) {
                        const float *kernel = kernels + c * taps + k * w->kernel_width;
                        const float *row = images + c * size + (above + k * w->dilation_down) * w->width;
                        for (int l = columns.begin; l < columns.end; l++) {
                            sum += kernel[l] * row[before + l * w->dilation_right];
                        }
                    }
                }
                y[position++] = sum;
            }
        }
    }
}

/* Transposed convolution with the weights (channels, out_channels / groups, kernel_height, kernel_width). */
static void convolve_transposed(const window *w, const float *weight, const float *bias, const float *x, float *y)
{
    const int group_channels = w->channels / w->groups, group_outputs = w->out_channels / w->groups;
    const int taps = w->kernel_height * w->kernel_width, size = w->height * w->width;
    for (int o = 0; o < w->out_channels; o++) {
        const int first = o / group_outputs * group_channels;
        for (int i = 0; i < w->out_height; i++) {
            for (int j = 0; j < w->out_width; j++) {
                float sum = w->biases == 0 ? 0.0f : bias[o];
                for (int k = 0; k < w->kernel_height; k++) {
                    const int row = source(i, k, w->top, w->stride_down, w->dilation_down, w->height);
                    for (int l = 0; row >= 0 && l < w->kernel_width; l++) {
                        const int column = source(j, l, w->left, w->stride_right, w->dilation_right, w->width);
                        for (int c = first; column >= 0 && c < first + group_channels; c++) {
                            const float *kernel = weight + (c * group_outputs + o % group_outputs) * taps;
                            sum += kernel[k * w->kernel_width + l] * x[c * size + row * w->width + column];
                        }
                    }
                }
                *y++ = sum;
            }
        }
    }
}

/* The product with the weights (outputs, inputs), plus the bias, if it is not NULL. */
static void dense(const float *weight, const float *bias, const float *x, int inputs, int outputs, float *y)
{
    for (int o = 0; o < outputs; o++) {
        float sum = bias == NULL ? 0.0f : bias[o];
        for (int i = 0; i < inputs; i++) {
            sum += weight[o * inputs + i] * x[i];
        }
        y[o] = sum;
    }
}

/* The largest number under each window. */
static void pool_max(const window *w, const float *x, float *y)
{
    for (int c = 0; c < w->channels; c++) {
        const float *image = x + c * w->height * w->width;
        for (int i = 0; i < w->out_height; i++) {
            const int above = i * w->stride_down - w->top;
            const span rows = inside(above, w->kernel_height, w->dilation_down, w->height);
            for (int j = 0; j < w->out_width; j++) {
                const int before = j * w->stride_right - w->left;
                const span columns = inside(before, w->kernel_width, w->dilation_right, w->width);
                float largest = -INFINITY;
                for (int k = rows.begin; k < rows.end; k++) {
                    const float *row = image + (above + k * w->dilation_down) * w->width;
                    for (int l = columns.begin; l < columns.end; l++) {
                        const float number = row[before + l * w->dilation_right];
                        if (number > largest || isnan(number)) {
                            largest = number;
                        }
                    }
                }
                *y++ = largest;
            }
        }
    }
}

/* The mean of each channel. */
static void average(const float *x, int channels, int size, float *y)
{
    for (int c = 0; c < channels; c++) {
        float sum = 0.0f;
        for (int i = 0; i < size; i++) {
            sum += x[c * size + i];
        }
        y[c] = sum / (float)size;
    }
}

/* Images whose rows and columns are weighted sums of those of x. */
static void resample(const sampling *rows, const sampling *columns, const float *x, int channels, float *y)
{
    for (int c = 0; c < channels; c++) {
        const float *image = x + c * rows->length * columns->length;
        for (int i = 0; i < rows->count; i++) {
            for (int j = 0; j < columns->count; j++) {
                float sum = 0.0f;
                for (int k = rows->starts[i]; k < rows->starts[i + 1]; k++) {
                    const float *row = image + rows->sources[k] * columns->length;
                    float across = 0.0f;
                    for (int l = columns->starts[j]; l < columns->starts[j + 1]; l++) {
                        across += columns->weights[l] * row[columns->sources[l]];
                    }
                    sum += rows->weights[k] * across;
                }
                *y++ = sum;
            }
        }
    }
}

/* More channels: zeros, those of x, and zeros up to the number that y has. */
static void pad_channels(const float *x, int before, int channels, int out_channels, int size, float *y)
{
    for (int i = 0; i < out_channels * size; i++) {
        const int place = i - before * size;
        y[i] = place >= 0 && place < channels * size ? x[place] : 0.0f;
    }
}

/* The sum of two arrays; y may be one of them. */
static void add(const float *a, const float *b, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = a[i] + b[i];
    }
}

/* y = x * factor; y may be x, here and in the functions below. */
static void multiply(const float *x, float factor, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = x[i] * factor;
    }
}

/* y = x * scale + shift, with one scale and one shift for each channel. */
static void scale_and_shift(const float *x, const float *scale, const float *shift, int channels, int size, float *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = x[c * size + i] * scale[c] + shift[c];
        }
    }
}

/* Each group of numbers with the mean 0 and the variance 1. */
static void normalize(const float *x, int groups, int size, float eps, float *y)
{
    for (int g = 0; g < groups; g++) {
        const float *from = x + g * size;
        float *to = y + g * size, mean = 0.0f, variance = 0.0f, scale;
        for (int i = 0; i < size; i++) {
            mean += from[i] / (float)size;
        }
        for (int i = 0; i < size; i++) {
            variance += (from[i] - mean) * (from[i] - mean) / (float)size;
        }
        scale = 1.0f / sqrtf(variance + eps);
        for (int i = 0; i < size; i++) {
            to[i] = (from[i] - mean) * scale;
        }
    }
}

/* exp(x - largest x) / sum, over the channels, at each of size positions. */
static void softmax(const float *x, int channels, int size, float *y)
{
    for (int i = 0; i < size; i++) {
        float largest = x[i], sum = 0.0f;
        for (int c = 1; c < channels; c++) {
            largest = fmaxf(largest, x[c * size + i]);
        }
        for (int c = 0; c < channels; c++) {
            y[c * size + i] = expf(x[c * size + i] - largest);
            sum += y[c * size + i];
        }
        for (int c = 0; c < channels; c++) {
            y[c * size + i] /= sum;
        }
    }
}

/* The logarithm of softmax. */
static void log_softmax(const float *x, int channels, int size, float *y)
{
    for (int i = 0; i < size; i++) {
        float largest = x[i], sum = 0.0f;
        for (int c = 1; c < channels; c++) {
            largest = fmaxf(largest, x[c * size + i]);
        }
        for (int c = 0; c < channels; c++) {
            sum += expf(x[c * size + i] - largest);
        }
        for (int c = 0; c < channels; c++) {
            y[c * size + i] = x[c * size + i] - largest - logf(sum);
        }
    }
}

/* x if x > 0, else slope * x, with one slope for each channel. */
static void activate_prelu(const float *x, const float *slopes, int channels, int size, float *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            const float number = x[c * size + i];
            y[c * size + i] = number > 0.0f ? number : slopes[c] * number;
        }
    }
}

/* 1 / (1 + exp(-x)), which does not overflow. */
static float sigmoid(float x)
{
    const float decay = expf(-fabsf(x));
    return (x < 0.0f ? decay : 1.0f) / (1.0f + decay);
}

/* x if x > 0, else 0. */
static void activate_relu(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = x[i] < 0.0f ? 0.0f : x[i];
    }
}

/* tanh(x). */
static void activate_tanh(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = tanhf(x[i]);
    }
}

/* x if x > 0, else slope * x. */
static void activate_leaky_relu(const float *x, int count, float slope, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = x[i] > 0.0f ? x[i] : slope * x[i];
    }
}

/* scale * x if x > 0, else scale * alpha * (exp(x) - 1). */
static void activate_elu(const float *x, int count, float alpha, float scale, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = scale * (x[i] > 0.0f ? x[i] : alpha * expm1f(x[i]));
    }
}

/* x * P(normal < x). */
static void activate_gelu(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = 0.5f * x[i] * (1.0f + erff(0.707106781f * x[i]));
    }
}

/* GELU's approximation with a hyperbolic tangent. */
static void activate_gelu_tanh(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        const float inner = 0.797884561f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        y[i] = 0.5f * x[i] * (1.0f + tanhf(inner));
    }
}

/* x * sigmoid(x). */
static void activate_silu(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = x[i] * sigmoid(x[i]);
    }
}

/* 1 / (1 + exp(-x)) of each number. */
static void activate_sigmoid(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = sigmoid(x[i]);
    }
}

/* log(1 + exp(beta * x)) / beta, or x if beta * x is above the threshold. */
static void activate_softplus(const float *x, int count, float beta, float threshold, float *y)
{
    for (int i = 0; i < count; i++) {
        const float scaled = beta * x[i];
        const float soft = (fmaxf(scaled, 0.0f) + log1pf(expf(-fabsf(scaled)))) / beta;
        y[i] = scaled > threshold ? x[i] : soft;
    }
}

/* min(max(x + 3, 0), 6) / 6. */
static void activate_hard_sigmoid(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = fminf(fmaxf(x[i] + 3.0f, 0.0f), 6.0f) / 6.0f;
    }
}

/* x * min(max(x + 3, 0), 6) / 6. */
static void activate_hard_swish(const float *x, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = x[i] * (fminf(fmaxf(x[i] + 3.0f, 0.0f), 6.0f) / 6.0f);
    }
}
