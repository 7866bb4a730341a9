{{ news(
    '(select clock_no, concept, hour as step, value, n_obs, first_known_hour as first_known_step,'
    ~ ' last_known_hour as last_known_step from ' ~ ref('hours') ~ ')',
    '(select *, hour as step, known_hour as known_step from ' ~ ref('readings') ~ ')',
    ref('icu_clocks')
) }}
