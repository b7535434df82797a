"""Colour per sample: one deferred pass in numba over what the rasteriser found visible.

Each pixel has S×S samples; shadow and occlusion lookups use a different fixed offset for each sample, so that they are
smooth after averaging and every picture is the same on every run.
"""

from __future__ import annotations

import numpy as np

from next3d.compiled import compiled
from next3d.data.synthesis.parts import EYES, FLESH, FUR, HEAD, LIPS, MATTE, MOUTH, SHINY, SKIN

OCCLUSION_PAIRS = 4
SHADOW_TAPS = 4
CAVITY = (np.float32(0.020), np.float32(0.006), np.float32(0.006))  # linear RGB of the mouth where nothing is seen


def sample_patterns(samples: int) -> np.ndarray:
    """(S², PAIRS + TAPS, 2) float32 offsets in the unit disc: for each sample of a pixel, where it looks around."""
    count = samples * samples
    sample, pair = np.meshgrid(np.arange(count), np.arange(OCCLUSION_PAIRS), indexing="ij")
    angle = 2.399963 * 0.5 * sample + np.pi * pair / OCCLUSION_PAIRS
    radius = 0.25 + 0.75 * (pair + 0.5) / OCCLUSION_PAIRS
    around = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    sample, tap = np.meshgrid(np.arange(count), np.arange(SHADOW_TAPS), indexing="ij")
    place = tap * count + (sample * 7) % count
    angle, radius = 2.399963 * place, np.sqrt((tap + (((sample * 5) % count) + 0.5) / count) / SHADOW_TAPS)
    shadow = np.stack([radius * np.sin(angle), radius * np.cos(angle)], -1)
    return np.concatenate([around, shadow], 1).astype(np.float32)


@compiled()
def _streak(u, v):
    """Noise in [0, 1] that varies quickly across a lock and slowly along it."""
    total = np.float32(0.0)
    for octave in range(2):
        a = u * (1.0 + 1.7 * octave)
        b = v * 0.35
        i, j = int(np.floor(a)), int(np.floor(b))
        fa, fb = a - i, b - j
        fa, fb = fa * fa * (3 - 2 * fa), fb * fb * (3 - 2 * fb)
        value = 0.0
        for di in range(2):
            for dj in range(2):
                h = np.uint32((i + di) * 374761393 + (j + dj) * 668265263 + octave * 974711)
                h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(1274126177))
                h = h ^ (h >> np.uint32(16))
                w = (fa if di else 1 - fa) * (fb if dj else 1 - fb)
                value += w * (np.float64(h & np.uint32(0xFFFF)) / 65535.0)
        total += np.float32(value * (0.62 if octave == 0 else 0.38))
    return total


@compiled()
def _power(x, n):
    """x to the power 2ⁿ."""
    for _ in range(n):
        x = x * x
    return x


@compiled()
def occlusion(depth, row, column, reach, offsets):
    """How deep a sample lies in a valley of the depth picture, 0 to 1; a plane at any slant has 0.

    ``reach`` over the depth is the radius in samples; ``offsets`` (PAIRS, 2) lie in the unit disc.
    """
    height, width = depth.shape
    here = depth[row, column]
    radius = reach / here
    scale = 0.045  # world units: 1.8 cm
    total = 0.0
    for k in range(OCCLUSION_PAIRS):
        dx, dy = int(np.rint(radius * offsets[k, 0])), int(np.rint(radius * offsets[k, 1]))
        pair = 0.0
        for sign in (-1, 1):
            r, c = row + sign * dy, column + sign * dx
            difference = -scale
            if 0 <= r < height and 0 <= c < width and depth[r, c] < 1e6:
                difference = here - depth[r, c]
                if difference > 2.2 * scale:  # something far in front casts no soft shade here
                    difference = scale * 2.2 * 2.2 * scale / difference
                difference = max(-2.2 * scale, difference)
            pair += difference
        total += min(max(0.5 * pair / scale, 0.0), 1.0)
    return total / OCCLUSION_PAIRS


@compiled()
def shade(
    face, weights, depth, faces, points, normals, colours, tangents, uvs, materials, labels, texture, texture_labels,
    eye, light, patterns, shadow, shadow_frame, shadow_bias, samples, reach, mouth_point, image, part, normal_image,
):  # fmt: skip
    """Fill image (H, W, 3) with display colours in linear light, part (H, W) and, unless empty, normal_image (H, W, 4)
    int16, of which three are used: unit normals times 32767.

    face (H, W), weights (H, W, 3), depth (H, W): visibility. faces (F, 3), materials (F,), labels (F,).
    points, normals, colours (P, 4), tangents, uvs (P, 2): vertices, world units. texture (T, T, 4): the head's atlas.
    eye (3,): the camera. light (8, 3). patterns: see :func:`sample_patterns`. shadow (K, K): depth from the key
    light, and shadow_frame (3, 4) from world to it. mouth_point (6,): a point between the lips and the direction out
    of the mouth, behind which light fades. ``image`` may lie in the memory of ``weights``, ``normal_image`` in
    that of ``face``: a sample reads only its own.
    """
    height, width = face.shape
    wants_normals = normal_image.shape[0] > 0
    size = texture.shape[0]
    shadow_size = shadow.shape[0]
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            if f < 0:
                part[row, column] = 0
                continue
            w0, w1, w2 = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            material = materials[f]
            label = labels[f]
            px = w0 * points[a, 0] + w1 * points[b, 0] + w2 * points[c, 0]
            py = w0 * points[a, 1] + w1 * points[b, 1] + w2 * points[c, 1]
            pz = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]
            nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
            ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
            nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
            length = 1 / max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-6))
            nx, ny, nz = nx * length, ny * length, nz * length
            vx, vy, vz = eye[0] - px, eye[1] - py, eye[2] - pz
            length = 1 / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * length, vy * length, vz * length
            facing = nx * vx + ny * vy + nz * vz
            # The geometric normal decides which side is seen
            ex, ey, ez = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
            gx, gy, gz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
            behind = (ey * gz - ez * gy) * vx + (ez * gx - ex * gz) * vy + (ex * gy - ey * gx) * vz < 0
            if material == HEAD:
                u = (w0 * uvs[a, 0] + w1 * uvs[b, 0] + w2 * uvs[c, 0]) * size - 0.5
                v = (w0 * uvs[a, 1] + w1 * uvs[b, 1] + w2 * uvs[c, 1]) * size - 0.5
                u, v = min(max(u, 0.0), size - 1.001), min(max(v, 0.0), size - 1.001)
                i, j = int(v), int(u)
                fu, fv = np.float32(u - j), np.float32(v - i)
                t00, t01, t10, t11 = (1 - fv) * (1 - fu), (1 - fv) * fu, fv * (1 - fu), fv * fu
                red = (
                    t00 * texture[i, j, 0]
                    + t01 * texture[i, j + 1, 0]
                    + t10 * texture[i + 1, j, 0]
                    + t11 * texture[i + 1, j + 1, 0]
                )
                green = (
                    t00 * texture[i, j, 1]
                    + t01 * texture[i, j + 1, 1]
                    + t10 * texture[i + 1, j, 1]
                    + t11 * texture[i + 1, j + 1, 1]
                )
                blue = (
                    t00 * texture[i, j, 2]
                    + t01 * texture[i, j + 1, 2]
                    + t10 * texture[i + 1, j, 2]
                    + t11 * texture[i + 1, j + 1, 2]
                )
                gloss = (
                    t00 * texture[i, j, 3]
                    + t01 * texture[i, j + 1, 3]
                    + t10 * texture[i + 1, j, 3]
                    + t11 * texture[i + 1, j + 1, 3]
                )
                label = texture_labels[int(v + 0.5), int(u + 0.5)]
                if behind:  # the inside of the head, seen through the mouth
                    label = MOUTH
            else:
                red = w0 * colours[a, 0] + w1 * colours[b, 0] + w2 * colours[c, 0]
                green = w0 * colours[a, 1] + w1 * colours[b, 1] + w2 * colours[c, 1]
                blue = w0 * colours[a, 2] + w1 * colours[b, 2] + w2 * colours[c, 2]
                gloss = w0 * colours[a, 3] + w1 * colours[b, 3] + w2 * colours[c, 3]
                if behind and material != FUR:
                    nx, ny, nz, facing = -nx, -ny, -nz, -facing
            part[row, column] = label
            if wants_normals:
                for k, component in enumerate((nx, ny, nz)):
                    normal_image[row, column, k] = np.int16(np.rint(component * np.float32(32767)))
            if material == HEAD and behind:
                for k in range(3):
                    image[row, column, k] = CAVITY[k]
                continue
            facing = min(max(facing, np.float32(0.0)), np.float32(1.0))

            sub = (row % samples) * samples + column % samples
            # Shadow of the key light
            open_key = np.float32(1.0)
            front = nx * light[0, 0] + ny * light[0, 1] + nz * light[0, 2]
            if front > -0.35 or material == FUR:
                # lifted off the surface along its normal, against self-shadowing
                lift = np.float32(0.012)
                lx, ly, lz = px + nx * lift, py + ny * lift, pz + nz * lift
                su = shadow_frame[0, 0] * lx + shadow_frame[0, 1] * ly + shadow_frame[0, 2] * lz + shadow_frame[0, 3]
                sv = shadow_frame[1, 0] * lx + shadow_frame[1, 1] * ly + shadow_frame[1, 2] * lz + shadow_frame[1, 3]
                sd = shadow_frame[2, 0] * lx + shadow_frame[2, 1] * ly + shadow_frame[2, 2] * lz + shadow_frame[2, 3]
                su, sv = (su + 1) * 0.5 * shadow_size - 0.5, (sv + 1) * 0.5 * shadow_size - 0.5
                blocked = 0
                spread = np.float32(shadow_size) * np.float32(0.0085)
                for k in range(SHADOW_TAPS):
                    i = int(np.rint(sv + spread * patterns[sub, OCCLUSION_PAIRS + k, 0]))
                    j = int(np.rint(su + spread * patterns[sub, OCCLUSION_PAIRS + k, 1]))
                    if 0 <= i < shadow_size and 0 <= j < shadow_size and shadow[i, j] < sd - shadow_bias:
                        blocked += 1
                open_key = np.float32(1 - blocked / SHADOW_TAPS)
            closed = np.float32(occlusion(depth, row, column, reach, patterns[sub]))
            ambient = 1 - np.float32(0.80) * closed
            if label == MOUTH:  # light fades into the mouth
                inside = (
                    (mouth_point[0] - px) * mouth_point[3]
                    + (mouth_point[1] - py) * mouth_point[4]
                    + (mouth_point[2] - pz) * mouth_point[5]
                )
                fade = 1 / (1 + max(np.float32(0.0), inside - np.float32(0.02)) * np.float32(16.0))
                ambient = (np.float32(0.25) + np.float32(0.75) * ambient) * fade * fade
                open_key = (np.float32(0.60) * open_key + np.float32(0.25)) * fade * fade

            skin_like = label in (SKIN, LIPS) or (material == FLESH and label != MOUTH)
            # Diffuse: wrapped, redder at the terminator for skin
            wr, wg, wb = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            if skin_like:
                wr, wg, wb = np.float32(0.34), np.float32(0.16), np.float32(0.12)
            elif material == FUR:
                wr = wg = wb = np.float32(0.30)
            elif material == MATTE:
                wr = wg = wb = np.float32(0.12)
            elif label == EYES:
                wr = wg = wb = np.float32(0.45)
            elif label == MOUTH:
                wr, wg, wb = np.float32(0.6), np.float32(0.5), np.float32(0.5)
            fill = nx * light[2, 0] + ny * light[2, 1] + nz * light[2, 2]
            fill = max(np.float32(0.0), (fill + np.float32(0.4)) / np.float32(1.4))
            up = np.float32(0.5) + np.float32(0.5) * ny
            back = nx * light[4, 0] + ny * light[4, 1] + nz * light[4, 2]
            edge = 1 - facing
            rim = max(np.float32(0.0), back + np.float32(0.25)) * edge * edge * edge * ambient
            sheen = np.float32(0.05) if material == FUR else np.float32(0.25)
            key_r = max(np.float32(0.0), (front + wr) / (1 + wr)) * (open_key + (1 - open_key) * wr * np.float32(0.4))
            key_g = max(np.float32(0.0), (front + wg) / (1 + wg)) * open_key
            key_b = max(np.float32(0.0), (front + wb) / (1 + wb)) * open_key
            # what is occluded on skin still gets red light from around it
            warm = ambient + (1 - ambient) * (np.float32(0.22) if skin_like else np.float32(0.0))

            # Highlights
            hx, hy, hz = vx + light[0, 0], vy + light[0, 1], vz + light[0, 2]
            length = 1 / max(np.sqrt(hx * hx + hy * hy + hz * hz), np.float32(1e-6))
            half = max(np.float32(0.0), (nx * hx + ny * hy + nz * hz) * length)
            spec_r = spec_g = spec_b = np.float32(0.0)
            if material == FUR:
                u = w0 * uvs[a, 0] + w1 * uvs[b, 0] + w2 * uvs[c, 0]
                v = w0 * uvs[a, 1] + w1 * uvs[b, 1] + w2 * uvs[c, 1]
                streak = _streak(u, v)
                tone = np.float32(0.62) + np.float32(0.76) * streak
                red, green, blue = red * tone, green * tone, blue * tone
                tx = w0 * tangents[a, 0] + w1 * tangents[b, 0] + w2 * tangents[c, 0]
                ty = w0 * tangents[a, 1] + w1 * tangents[b, 1] + w2 * tangents[c, 1]
                tz = w0 * tangents[a, 2] + w1 * tangents[b, 2] + w2 * tangents[c, 2]
                shift = np.float32(0.5) * (streak - np.float32(0.5)) + np.float32(0.08)
                tx, ty, tz = tx + shift * nx, ty + shift * ny, tz + shift * nz
                length = 1 / max(np.sqrt(tx * tx + ty * ty + tz * tz), np.float32(1e-6))
                dot = (
                    (tx * hx + ty * hy + tz * hz) * length / max(np.sqrt(hx * hx + hy * hy + hz * hz), np.float32(1e-6))
                )
                sine = max(np.float32(0.0), 1 - dot * dot)
                lobe = _power(sine, 4) * max(np.float32(0.0), front + np.float32(0.25)) * gloss * open_key
                wide = _power(sine, 2) * max(np.float32(0.0), front + np.float32(0.25)) * gloss * open_key
                spec_r = lobe * np.float32(0.13) + wide * red * np.float32(0.9)
                spec_g = lobe * np.float32(0.12) + wide * green * np.float32(0.9)
                spec_b = lobe * np.float32(0.11) + wide * blue * np.float32(0.9)
            elif label == EYES:
                spark = _power(half, 8) * 2.2
                # a second, soft catch-light that stays beside the camera
                cx, cy, cz = vx + np.float32(0.25), vy + np.float32(0.55), vz
                length = 1 / np.sqrt(cx * cx + cy * cy + cz * cz)
                spark += _power(max(np.float32(0.0), (nx * cx + ny * cy + nz * cz) * length), 9) * np.float32(0.55)
                spec_r = spec_g = spec_b = np.float32(spark) * ambient
            else:
                sharp = 3 if material == MATTE else 4
                if label == LIPS:
                    sharp = 5
                elif material == SHINY or label == MOUTH:
                    sharp = 6
                strength = gloss * (np.float32(0.9) if material == SHINY else np.float32(0.42))
                highlight = (
                    _power(half, sharp) * strength * open_key * max(np.float32(0.0), min(np.float32(1.0), front * 4))
                )
                fresnel = (np.float32(0.04) + edge * edge * edge * edge * edge) * gloss * np.float32(0.5) * ambient * up
                spec_r = spec_g = spec_b = highlight + fresnel
            sky = ambient * up
            ground = ambient * (1 - up)
            image[row, column, 0] = (
                red
                * (key_r * light[1, 0] + fill * ambient * light[3, 0] + warm * up * light[6, 0] + ground * light[7, 0])
                + spec_r * light[1, 0] + rim * light[5, 0] * (sheen + red)
            )  # fmt: skip
            image[row, column, 1] = (
                green * (key_g * light[1, 1] + fill * ambient * light[3, 1] + sky * light[6, 1] + ground * light[7, 1])
                + spec_g * light[1, 1] + rim * light[5, 1] * (sheen + green)
            )  # fmt: skip
            image[row, column, 2] = (
                blue * (key_b * light[1, 2] + fill * ambient * light[3, 2] + sky * light[6, 2] + ground * light[7, 2])
                + spec_b * light[1, 2] + rim * light[5, 2] * (sheen + blue)
            )  # fmt: skip
            if label == MOUTH:
                for k in range(3):  # what lies deep in the mouth ends in its darkness
                    image[row, column, k] = max(image[row, column, k], CAVITY[k])


@compiled()
def glaze(
    face,
    weights,
    depth,
    solid_depth,
    faces,
    points,
    normals,
    colours,
    eye,
    light,
    solid,
    image,
    part,
    background,
    samples,
    label,
):
    """Lay lenses over what is behind them: a tint with the opacity in colours[:, 3], and a reflection of the sky."""
    height, width = face.shape
    for row in range(height):
        for column in range(width):
            f = face[row, column]
            if f < 0 or depth[row, column] >= solid_depth[row, column]:
                continue
            w0, w1, w2 = weights[row, column, 0], weights[row, column, 1], weights[row, column, 2]
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            if not solid[row, column]:
                for k in range(3):
                    image[row, column, k] = background[row // samples, column // samples, k]
            n = np.empty(3)
            v = np.empty(3)
            for k in range(3):
                n[k] = w0 * normals[a, k] + w1 * normals[b, k] + w2 * normals[c, k]
                v[k] = eye[k] - (w0 * points[a, k] + w1 * points[b, k] + w2 * points[c, k])
            n /= max(np.sqrt((n * n).sum()), 1e-9)
            v /= np.sqrt((v * v).sum())
            facing = (n * v).sum()
            if facing < 0:
                n, facing = -n, -facing
            h = v + light[0]
            h /= np.sqrt((h * h).sum())
            spark = _power(max(0.0, (n * h).sum()), 6) * 0.55
            mirrored = 2 * facing * n - v
            sky = (
                0.02
                + 0.30 * (1 - facing) ** 3
                + 0.10 * min(1.0, max(0.0, 6 * (mirrored[1] - 0.25))) * max(0.0, 1 - 1.5 * mirrored[1])
            )
            opacity = w0 * colours[a, 3] + w1 * colours[b, 3] + w2 * colours[c, 3]
            for k in range(3):
                tint = w0 * colours[a, k] + w1 * colours[b, k] + w2 * colours[c, k]
                image[row, column, k] = (
                    image[row, column, k] * (1 - opacity) + tint * opacity * 0.6 + (sky + spark) * light[6, k] * 1.2
                )
            solid[row, column] = True
            if opacity > 0.5:
                part[row, column] = label


def _display_table() -> np.ndarray:
    """sRGB in [0, 1] for linear light 0 … 2 in 8,192 steps, with a soft shoulder above 0.7."""
    x = np.arange(8193) / 4096
    over = np.maximum(x - 0.7, 0)
    x = np.minimum(x, 0.7) + over / (1 + over / 0.3)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055).astype(np.float32)


DISPLAY = _display_table()


@compiled()
def _display(x, table):
    return table[int(min(max(x, np.float32(0.0)), np.float32(2.0)) * np.float32(4096) + np.float32(0.5))]


@compiled()
def resolve(image, solid, part, depth, normal_image, samples, background, table, picture, parts, depths, normals):
    """Average S×S samples over the background (R, R, 3) into picture (R, R, 3) uint8, and the auxiliary pictures.

    A pixel's part is that of most of its samples; its depth and normal are averaged over the samples of that part.
    With an empty ``normal_image`` depths and normals are left as they are.
    """
    resolution = picture.shape[0]
    count = samples * samples
    votes = np.zeros(16, np.int64)
    for row in range(resolution):
        for column in range(resolution):
            r = g = b = 0.0
            votes[:] = 0
            back_r, back_g, back_b = (
                _display(background[row, column, 0], table),
                _display(background[row, column, 1], table),
                _display(background[row, column, 2], table),
            )  # fmt: skip
            for i in range(row * samples, row * samples + samples):
                for j in range(column * samples, column * samples + samples):
                    if solid[i, j]:
                        r += _display(image[i, j, 0], table)
                        g += _display(image[i, j, 1], table)
                        b += _display(image[i, j, 2], table)
                    else:
                        r, g, b = r + back_r, g + back_g, b + back_b
                    votes[part[i, j]] += 1
            picture[row, column, 0] = np.uint8(min(r / count, 1.0) * 255 + 0.5)
            picture[row, column, 1] = np.uint8(min(g / count, 1.0) * 255 + 0.5)
            picture[row, column, 2] = np.uint8(min(b / count, 1.0) * 255 + 0.5)
            best = 0
            for k in range(16):
                if votes[k] > votes[best]:
                    best = k
            parts[row, column] = best
            if not normal_image.shape[0]:
                continue
            z = nx = ny = nz = 0.0
            if best > 0:
                for i in range(row * samples, row * samples + samples):
                    for j in range(column * samples, column * samples + samples):
                        if part[i, j] == best and depth[i, j] < 1e6:
                            z += depth[i, j]
                            nx += normal_image[i, j, 0]
                            ny += normal_image[i, j, 1]
                            nz += normal_image[i, j, 2]
                length = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
                depths[row, column] = z / votes[best]
                normals[row, column, 0], normals[row, column, 1], normals[row, column, 2] = (
                    nx / length,
                    ny / length,
                    nz / length,
                )
            else:
                depths[row, column] = 0
                normals[row, column, :] = 0
