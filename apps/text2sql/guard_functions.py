"""Functions that a query may call: those that only compute. Whatever is not named here is refused.

Names are in small letters, as sqlglot and the engines write them. Left out on purpose, in every dialect: what reads or
writes files, reaches the network or another database, waits, locks, changes settings, tells who or where the server
is, runs SQL that is given as text, or makes unbounded text of nothing.
"""

from __future__ import annotations

_COMMON = """
and or xor not if iif case cast try_cast convert coalesce nullif ifnull nvl nvl2 exists greatest least any_value count
count_if countif sum avg min max total group_concat string_agg array_agg listagg median mode percentile_cont
percentile_disc quantile approx_distinct approx_count_distinct approx_quantile stddev stddev_pop stddev_samp stdev
variance variance_pop variance_samp var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept regr_r2
regr_count regr_avgx regr_avgy regr_sxx regr_sxy regr_syy bool_and bool_or every logical_and logical_or bit_and bit_or
bit_xor bitwise_and_agg bitwise_or_agg bitwise_xor_agg arg_max arg_min argmax argmin max_by min_by kurtosis skewness
row_number rank dense_rank percent_rank cume_dist ntile lag lead first last first_value last_value nth_value abs ceil
ceiling floor round trunc truncate sign signum sqrt cbrt exp ln log log2 log10 pow power mod pi degrees radians sin
cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh cot div safe_divide factorial upper lower ucase lcase
length len char_length character_length octet_length bit_length substr substring substring_index left right trim ltrim
rtrim btrim replace translate reverse instr position strpos str_position locate concat concat_ws initcap ascii chr
char unicode hex starts_with startswith ends_with endswith contains split_part split string_to_array regexp_like
regexp_i_like regexp_full_match regexp_matches regexp_extract regexp_extract_all regexp_replace regexp_substr
regexp_instr regexp_count regexp_split overlay soundex levenshtein jaro_winkler_similarity jarowinkler_similarity md5
lpad rpad pad format to_char to_number to_date to_timestamp quote_ident date time datetime timestamp now current_date
current_time current_timestamp current_datetime localtime localtimestamp strftime julianday unixepoch timediff
date_trunc timestamp_trunc datetime_trunc date_part extract date_add date_sub date_diff datediff datetime_add
datetime_sub datetime_diff timestamp_add timestamp_sub timestamp_diff timestampdiff timestampadd adddate subdate
addtime subtime add_months months_between last_day age make_date make_interval make_timestamp justify_days
justify_hours justify_interval date_from_parts timestamp_from_parts datefromparts year month day hour minute second
quarter week weekday dayofweek dayofmonth dayofyear day_of_week day_of_month day_of_year week_of_year weekofyear
yearofweek year_of_week isodow dayname monthname date_format time_format str_to_date str_to_time time_to_str
time_to_unix unix_to_time unix_timestamp from_unixtime to_days from_days maketime makedate period_diff period_add
ts_or_ds_add ts_or_ds_diff ts_or_ds_to_date ts_or_ds_to_timestamp ts_or_ds_to_time ts_or_ds_to_date_str
date_str_to_date time_str_to_time number_to_str to_seconds time_to_sec sec_to_time json json_extract
json_extract_scalar json_array json_array_length json_object json_type json_valid json_quote json_group_array
json_group_object json_each json_tree json_value json_query json_keys json_contains json_unquote json_length
json_array_elements json_array_elements_text jsonb_array_elements jsonb_array_elements_text json_extract_path
json_extract_path_text jsonb_extract_path jsonb_extract_path_text jsonb_array_length json_object_keys
jsonb_object_keys json_agg jsonb_agg json_object_agg jsonb_object_agg json_build_object json_build_array to_json
to_jsonb row_to_json jsonb_extract jsonb_extract_scalar jsonb_contains jsonb_exists parse_json json_parse
json_array_agg array array_length array_size cardinality array_contains array_has list_contains array_to_string
array_join unnest explode list struct struct_extract row filter grouping grouping_id typeof all some columns
rand random md5 sha sha1 sha2 sha256 to_base64 from_base64 uuid gen_random_uuid json_set json_insert json_replace
json_remove json_patch json_pretty json_merge_patch json_search json_overlaps json_exists json_arrayagg
json_objectagg json_strip_nulls map map_keys map_values array_append array_prepend array_cat array_concat array_remove
array_replace array_position array_positions array_reverse array_max array_min array_to_json gcd lcm curdate curtime
utc_date utc_time utc_timestamp sysdate clock_timestamp statement_timestamp transaction_timestamp isfinite
similarity word_similarity
"""
_OWN = {
    "sqlite": "glob like likelihood likely unlikely printf quote unhex subtype match highlight snippet bm25 unistr",
    "duckdb": """list_aggregate list_sum list_avg list_count list_distinct list_sort list_value array_distinct
    array_sort array_slice epoch epoch_ms strptime string_split str_split string_split_regex suffix prefix fsum favg
    histogram arbitrary datesub hamming printf isnan isinf is_nan is_inf even jaccard
    list_transform list_apply array_transform transform list_filter array_filter list_reduce list_min list_max
    list_median list_mode list_any_value list_first list_last list_string_agg list_concat list_cat list_append
    list_prepend list_position list_indexof list_has list_has_any list_has_all list_unique list_zip list_reverse
    list_reverse_sort list_extract list_element list_select list_where list_intersect array_intersect array_unique
    array_has_all array_has_any array_zip flatten element_at map_extract map_entries map_from_entries map_concat
    map_contains to_map struct_pack struct_insert struct_keys to_days to_hours to_minutes to_months to_weeks to_years
    to_microseconds to_milliseconds epoch_us epoch_ns julian make_timestamp_ms time_bucket today century decade era
    millennium isoyear datepart datetrunc get_current_timestamp get_current_time try_strptime ago days_in_month bar
    strip_accents nfc_normalize left_grapheme length_grapheme strlen ord editdist3 mismatches jaro_similarity
    damerau_levenshtein format_bytes pg_typeof url_decode url_encode regexp_escape regexp_split_to_array product mad
    sem entropy quantile_cont approx_top_k histogram_exact reservoir_quantile geomean geometric_mean weighted_avg
    wavg yearweek count_star arg_max_null arg_min_null bitstring_agg kahan_sum sumkahan hash from_json json_structure
    json_extract_string json_transform json_group_structure gamma lgamma bit_count greatest_common_divisor
    least_common_multiple switch fill""",
    "postgres": """to_hex width_bucket regexp_match regexp_split_to_array date_bin array_dims array_lower array_upper
    array_ndims array_fill trim_array multirange lower_inc upper_inc isempty daterange int4range int8range numrange
    tsrange tstzrange range_agg to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank
    ts_rank_cd ts_headline jsonb_set jsonb_insert jsonb_pretty jsonb_typeof json_typeof
    jsonb_path_query jsonb_path_query_first jsonb_path_exists jsonb_build_object jsonb_build_array jsonb_strip_nulls
    quote_literal @@ make_time timezone scale min_scale trim_scale encode decode sha224 sha384 sha512
    random_normal num_nulls num_nonnulls unaccent levenshtein_less_equal metaphone dmetaphone hstore akeys avals
    st_distance st_dwithin st_contains st_within st_intersects st_area st_length st_x st_y st_makepoint st_point
    st_setsrid st_transform st_geomfromtext st_astext st_asgeojson st_buffer st_centroid""",
    "mysql": """elt field find_in_set mid strcmp interval std conv crc32 isnull yearweek bin oct ord quote insert space
    make_set export_set inet_aton inet_ntoa get_format microsecond json_depth json_array_append json_array_insert
    @@ json_merge_preserve json_contains_path json_schema_valid bit_count weight_string
    st_distance st_distance_sphere st_contains st_within st_intersects st_area st_length st_x st_y st_geomfromtext
    st_astext st_asgeojson point""",
}

FUNCTIONS = {dialect: frozenset(f"{_COMMON} {own}".split()) for dialect, own in _OWN.items()}
"""Dialect -> the functions that may be called in it."""

TABLE_FUNCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "sqlite": dict.fromkeys(
        ("json_each", "json_tree"), ("key", "value", "type", "atom", "id", "parent", "fullkey", "path", "json", "root")
    ),
    "duckdb": {
        "unnest": ("unnest",),
        "generate_series": ("generate_series", "range"),
        "json_each": ("key", "value", "type", "atom", "id", "parent", "fullkey", "path"),
    },
    "postgres": dict.fromkeys(
        ("unnest", "json_array_elements", "json_array_elements_text", "jsonb_array_elements",
         "jsonb_array_elements_text", "json_each", "jsonb_each", "json_each_text", "jsonb_each_text",
         "json_object_keys", "jsonb_object_keys", "jsonb_path_query", "string_to_table", "regexp_split_to_table",
         "generate_series"),
        ("key", "value", "ordinality"),
    ),
    "mysql": {"json_table": ()},
}  # fmt: skip
"""Dialect -> functions that may stand where a table stands -> the columns they give."""

HOMES: dict[str, frozenset[str]] = {
    "sqlite": frozenset(), "duckdb": frozenset({"main", "pg_catalog"}), "postgres": frozenset({"pg_catalog"}),
    "mysql": frozenset(),
}  # fmt: skip
"""Dialect -> schemas whose functions are the engine's own; one of another schema is whatever its owner made."""
