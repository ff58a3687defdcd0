/* A layer with weights in integers. A number is scale * (integer - zero), where the scale is known only to
 * the program that wrote this file: a sum becomes an output if it is multiplied by multiplier / 2^shift. */
typedef struct {
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multipliers; /* one for each output channel */
    const uint8_t *shifts;
    int zero, out_zero; /* of the input and of the output */
    int lowest;         /* output: out_zero if negative numbers become 0, else -128 */
} quantized;

/* Each position of an axis as a weighted sum of positions of the input's axis; weights are in 1 / 2^20. */
typedef struct {
    int length, count; /* of the input's axis and of the output's */
    const int *starts; /* where the taps of each position begin; one more for the end */
    const int *sources;
    const int32_t *weights;
} sampling;

/* The product value * multiplier / 2^shift, rounded. */
static int64_t rescaled(int64_t value, int32_t multiplier, int shift)
{
    const int64_t product = value * multiplier, half = (int64_t)1 << (shift - 1);
    return product < 0 ? -((half - product) >> shift) : (product + half) >> shift;
}

/* The nearest integer from lowest to 127. */
static int8_t clamped(int64_t value, int lowest)
{
    return (int8_t)(value < lowest ? lowest : value > 127 ? 127 : value);
}

/* The integer for a number that was divided by its scale. */
static int8_t rounded(float number, int zero)
{
    const float value = floorf(number + 0.5f) + (float)zero;
    return (int8_t)(value > 127.0f ? 127.0f : value > -128.0f ? value : -128.0f);
}

/* Integers for a float image: (x - shift) * scale + zero, with one shift and one scale for each channel. */
static void prepare_floats(const float *x, const float *shift, const float *scale, int channels, int size, int zero,
                           int8_t *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = rounded((x[c * size + i] - shift[c]) * scale[c], zero);
        }
    }
}

/* Integers for an image of bytes: (x * scale + shift) / 2^16, with one scale and one shift for each channel. */
static void prepare_bytes(const uint8_t *x, const int32_t *scale, const int32_t *shift, int channels, int size,
                          int8_t *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = clamped(rescaled((int64_t)x[c * size + i] * scale[c] + shift[c], 1, 16), -128);
        }
    }
}

/* Convolution with the weights (out_channels, channels / groups, kernel_height, kernel_width). */
static void convolve(const window *w, const quantized *q, const int8_t *x, int8_t *y)
{
    const int group_channels = w->channels / w->groups, group_outputs = w->out_channels / w->groups;
    const int taps = w->kernel_height * w->kernel_width, size = w->height * w->width;
    int position = 0;
    for (int o = 0; o < w->out_channels; o++) {
        const int8_t *kernels = q->weight + o * group_channels * taps;
        const int8_t *images = x + o / group_outputs * group_channels * size;
        for (int i = 0; i < w->out_height; i++) {
            const int above = i * w->stride_down - w->top;
            const span rows = inside(above, w->kernel_height, w->dilation_down, w->height);
            for (int j = 0; j < w->out_width; j++) {
                const int before = j * w->stride_right - w->left;
                const span columns = inside(before, w->kernel_width, w->dilation_right, w->width);
                int32_t sum = q->bias[w->biases == 1 ? o : position];
                for (int c = 0; c < group_channels; c++) {
                    for (int k = rows.begin; k < rows.end; k++) {
                        const int8_t *kernel = kernels + c * taps + k * w->kernel_width;
                        const int8_t *row = images + c * size + (above + k * w->dilation_down) * w->width;
                        for (int l = columns.begin; l < columns.end; l++) {
                            sum += kernel[l] * (row[before + l * w->dilation_right] - q->zero);
                        }
                    }
                }
                y[position++] = clamped(rescaled(sum, q->multipliers[o], q->shifts[o]) + q->out_zero, q->lowest);
            }
        }
    }
}

/* Transposed convolution with the weights (channels, out_channels / groups, kernel_height, kernel_width). */
static void convolve_transposed(const window *w, const quantized *q, const int8_t *x, int8_t *y)
{
    const int group_channels = w->channels / w->groups, group_outputs = w->out_channels / w->groups;
    const int taps = w->kernel_height * w->kernel_width, size = w->height * w->width;
    for (int o = 0; o < w->out_channels; o++) {
        const int first = o / group_outputs * group_channels;
        for (int i = 0; i < w->out_height; i++) {
            for (int j = 0; j < w->out_width; j++) {
                int32_t sum = q->bias[o];
                for (int k = 0; k < w->kernel_height; k++) {
                    const int row = source(i, k, w->top, w->stride_down, w->dilation_down, w->height);
                    for (int l = 0; row >= 0 && l < w->kernel_width; l++) {
                        const int column = source(j, l, w->left, w->stride_right, w->dilation_right, w->width);
                        for (int c = first; column >= 0 && c < first + group_channels; c++) {
                            const int8_t *kernel = q->weight + (c * group_outputs + o % group_outputs) * taps;
                            sum += kernel[k * w->kernel_width + l] * (x[c * size + row * w->width + column] - q->zero);
                        }
                    }
                }
                *y++ = clamped(rescaled(sum, q->multipliers[o], q->shifts[o]) + q->out_zero, q->lowest);
            }
        }
    }
}

/* One output of a dense layer, before it is rescaled. */
static int32_t weighted_sum(const int8_t *weight, int32_t bias, const int8_t *x, int inputs, int zero)
{
    int32_t sum = bias;
    for (int i = 0; i < inputs; i++) {
        sum += weight[i] * (x[i] - zero);
    }
    return sum;
}

/* The product with the weights (outputs, inputs), plus the bias. */
static void dense(const quantized *q, const int8_t *x, int inputs, int outputs, int8_t *y)
{
    for (int o = 0; o < outputs; o++) {
        const int32_t sum = weighted_sum(q->weight + o * inputs, q->bias[o], x, inputs, q->zero);
        y[o] = clamped(rescaled(sum, q->multipliers[o], q->shifts[o]) + q->out_zero, q->lowest);
    }
}

/* The same for the last layer with weights, whose outputs are floats: sum * scale. */
static void dense_to_floats(const int8_t *weight, const int32_t *bias, const float *scales, const int8_t *x,
                            int zero, int inputs, int outputs, float *y)
{
    for (int o = 0; o < outputs; o++) {
        y[o] = (float)weighted_sum(weight + o * inputs, bias[o], x, inputs, zero) * scales[o];
    }
}

/* The numbers that integers stand for. */
static void to_floats(const int8_t *x, int zero, float scale, int count, float *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = (float)(x[i] - zero) * scale;
    }
}

/* The largest number under each window. */
static void pool_max(const window *w, const int8_t *x, int8_t *y)
{
    for (int c = 0; c < w->channels; c++) {
        const int8_t *image = x + c * w->height * w->width;
        for (int i = 0; i < w->out_height; i++) {
            const int above = i * w->stride_down - w->top;
            const span rows = inside(above, w->kernel_height, w->dilation_down, w->height);
            for (int j = 0; j < w->out_width; j++) {
                const int before = j * w->stride_right - w->left;
                const span columns = inside(before, w->kernel_width, w->dilation_right, w->width);
                int8_t largest = -128;
                for (int k = rows.begin; k < rows.end; k++) {
                    const int8_t *row = image + (above + k * w->dilation_down) * w->width;
                    for (int l = columns.begin; l < columns.end; l++) {
                        const int8_t number = row[before + l * w->dilation_right];
                        largest = number > largest ? number : largest;
                    }
                }
                *y++ = largest;
            }
        }
    }
}

/* The mean of each channel. */
static void average(const int8_t *x, int zero, int channels, int size, int32_t multiplier, int shift, int out_zero,
                    int8_t *y)
{
    for (int c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int i = 0; i < size; i++) {
            sum += x[c * size + i] - zero;
        }
        y[c] = clamped(rescaled(sum, multiplier, shift) + out_zero, -128);
    }
}

/* Images whose rows and columns are weighted sums of those of x. */
static void resample(const sampling *rows, const sampling *columns, const int8_t *x, int zero, int channels,
                     int out_zero, int8_t *y)
{
    for (int c = 0; c < channels; c++) {
        const int8_t *image = x + c * rows->length * columns->length;
        for (int i = 0; i < rows->count; i++) {
            for (int j = 0; j < columns->count; j++) {
                int64_t sum = 0;
                for (int k = rows->starts[i]; k < rows->starts[i + 1]; k++) {
                    const int8_t *row = image + rows->sources[k] * columns->length;
                    int64_t across = 0;
                    for (int l = columns->starts[j]; l < columns->starts[j + 1]; l++) {
                        across += (int64_t)columns->weights[l] * (row[columns->sources[l]] - zero);
                    }
                    sum += rows->weights[k] * across;
                }
                *y++ = clamped(rescaled(sum, 1, 40) + out_zero, -128);
            }
        }
    }
}

/* More channels: zeros, those of x, and zeros up to the number that y has. */
static void pad_channels(const int8_t *x, int zero, int before, int channels, int out_channels, int size, int8_t *y)
{
    for (int i = 0; i < out_channels * size; i++) {
        const int place = i - before * size;
        y[i] = place >= 0 && place < channels * size ? x[place] : (int8_t)zero;
    }
}

/* The sum of two arrays, whose scales are multipliers / 2^shift of the sum's; y may be one of them. */
static void add(const int8_t *a, int a_zero, int32_t a_multiplier, const int8_t *b, int b_zero, int32_t b_multiplier,
                int shift, int out_zero, int lowest, int count, int8_t *y)
{
    for (int i = 0; i < count; i++) {
        const int32_t sum = (a[i] - a_zero) * a_multiplier + (b[i] - b_zero) * b_multiplier;
        y[i] = clamped(rescaled(sum, 1, shift) + out_zero, lowest);
    }
}

/* The same numbers with another scale and another zero. */
static void requantize(const int8_t *x, int zero, int32_t multiplier, int shift, int out_zero, int count, int8_t *y)
{
    for (int i = 0; i < count; i++) {
        y[i] = clamped(rescaled(x[i] - zero, multiplier, shift) + out_zero, -128);
    }
}

/* A function of each number, as a table of 256 integers for each channel; y may be x. */
static void look_up(const int8_t *tables, const int8_t *x, int channels, int size, int8_t *y)
{
    for (int c = 0; c < channels; c++) {
        for (int i = 0; i < size; i++) {
            y[c * size + i] = tables[c * 256 + 128 + x[c * size + i]];
        }
    }
}
